"""What our rows say about the paper: its numbers, our numbers in its tables, and which of its claims and effects we see."""

__all__ = []
