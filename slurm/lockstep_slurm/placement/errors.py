"""What placement refuses: CPUs that do not suffice, and descriptions of machines that cannot be read."""

from __future__ import annotations


class PlacementError(ValueError):
    """The CPUs do not suffice for what was asked; the message names both numbers and what to change."""


class TopologyError(ValueError):
    """A description of a machine cannot be read; the message names what is wrong in it, and where."""
