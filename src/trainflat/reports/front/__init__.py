"""Smaller models: what can be had, what is worth having, what each gives up, as a figure, in a page and in a notebook."""

__all__ = []
