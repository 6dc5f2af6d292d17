"""What was measured already, in a file of one JSON line a piece: a benchmark that was interrupted goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Kept:
    """Finished pieces by name, as JSON; those with another fingerprint are another measurement's, and not taken."""

    def __init__(self, file: Path, fingerprint: str) -> None:
        self.file = file
        self._fingerprint = fingerprint
        self._found: dict[str, dict[str, Any]] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            return
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a benchmark was killed while it wrote its last line
            file.write_text(whole, encoding="utf-8")
        for line in whole.splitlines():
            record = json.loads(line)
            if record["fingerprint"] == fingerprint:
                self._found[record["piece"]] = record["found"]

    def find(self, piece: str) -> dict[str, Any] | None:
        """What was found; None where it is still to be measured."""
        return self._found.get(piece)

    def add(self, piece: str, found: Mapping[str, Any]) -> None:
        """Keeps a piece."""
        record = {"fingerprint": self._fingerprint, "piece": piece, "found": dict(found)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._found[piece] = dict(found)

    def done(self) -> None:
        """Puts the file aside, under the name with ``.last``: the next call measures anew."""
        if self.file.exists():
            self.file.replace(self.file.with_name(f"{self.file.name}.last"))
