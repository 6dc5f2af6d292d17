"""What can be wrong with a gradient exchange."""

from __future__ import annotations


class GradientError(RuntimeError):
    """A gradient cannot be exchanged as asked; the message says which one, and what to do."""
