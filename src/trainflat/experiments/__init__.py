"""A recipe becomes a plan of stages, each of which runs once and is found again by what decides its result."""

__all__ = ["plan", "progress", "provenance", "recipe", "resolve", "runner", "stages", "store", "work"]
