"""``Origin``: the checkpoint of another job from which a new one goes on: the spec's ``checkpoint.resume_from``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import read_manifest
from lockstep_worker.checkpoint.folder import Name, names
from lockstep_worker.checkpoint.settings import section_of_this_run

FOLDER = "checkpoints"
"""Where a run directory has them."""


@dataclass(frozen=True)
class Origin:
    """A run directory, a folder of checkpoints, or one checkpoint; and which one of a folder's."""

    path: Path
    step: int | str = "last"
    """``last`` (the newest), ``best`` (of the best evaluation), or the one behind so many steps."""

    @classmethod
    def of_this_run(cls) -> Origin | None:
        """What this run's spec says; None: it begins anew."""
        section = section_of_this_run() or {}
        path = section.get("resume_from")
        return None if path is None else cls(Path(path), section.get("resume_step") or "last")

    def file(self) -> Path:
        """The checkpoint's file. Raises ``CheckpointError`` that says what there is in its place."""
        path = self.path
        if path.is_file():
            return path
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        try:
            found = names(folder)
        except OSError as error:
            raise CheckpointError(f"checkpoint.resume_from: {folder} cannot be read: {error.strerror}") from error
        if not found:
            what = (
                "has no checkpoint" if folder.is_dir() else "is neither a checkpoint nor a folder that this node sees"
            )
            raise CheckpointError(f"checkpoint.resume_from: {folder} {what}; there is nothing to go on from")
        return folder / self._chosen(folder, found).file

    def _chosen(self, folder: Path, found: list[Name]) -> Name:
        if self.step == "last":
            return found[0]
        if self.step == "best":
            return _best(folder, found)
        for name in found:
            if name.step == self.step:
                return name
        there = ", ".join(str(step) for step in sorted({name.step for name in found}))
        raise CheckpointError(
            f"checkpoint.resume_step is {self.step}, and {folder} has no checkpoint of that step; it has {there}"
        )


def _best(folder: Path, found: list[Name]) -> Name:
    """Of those that can be read: a torn one stays where it is, and a job that goes on may remove some."""
    scores: dict[Name, float] = {}
    unread = 0
    for name in found:
        try:
            score = read_manifest(folder / name.file).score
        except CheckpointError as error:
            unread += 1
            print(f"lockstep: not looked at for the best one: {error}", file=sys.stderr, flush=True)
            continue
        if score is not None:
            scores[name] = score
    if not scores:
        what = f" ({unread} cannot be read: see the log)" if unread else ""
        raise CheckpointError(
            f"checkpoint.resume_step is best, but none of the {len(found)} checkpoints in {folder}{what} was made "
            "behind an evaluation; take last, or a step"
        )
    return max(scores, key=lambda name: (scores[name], name))
