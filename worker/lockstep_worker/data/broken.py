"""What could not be decoded: counted, and named once."""

from __future__ import annotations

import sys


class Broken:
    """The images that could not be decoded; each is named in the log once."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        """Why, by path."""
        self.silent = False
        """In a loader, which hands on what it found to the rank that it loads for."""

    def add(self, path: str, why: str) -> None:
        """Another one, or one that is known."""
        if path not in self.found:
            self.found[path] = why
            if not self.silent:
                print(f"lockstep: skipped {path}: {why}", file=sys.stderr, flush=True)
