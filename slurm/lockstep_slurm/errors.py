"""The base of every error that this part raises on purpose: each says what was wrong, where, and what to do."""

from __future__ import annotations


class LockstepError(Exception):
    """Something a person can act on; ``str()`` of it is one to three plain sentences."""


class InputError(LockstepError):
    """What was asked for is wrong in itself, and nothing was begun: the command's exit code for it is another."""
