"""Stands for ``horovod.common.basics``: ``init`` makes Horovod's background thread, and that makes Gloo's.

In 0.28.1's order: Gloo's thread begins with the mask of whoever called ``init``; then the background thread goes to
its entry of HOROVOD_THREAD_AFFINITY, or says in the log that it could not.
"""

from __future__ import annotations

import os
import sys

import native  # type: ignore[import-not-found]  # beside the packages where they are used


class HorovodBasics:
    """One rank."""

    def init(self) -> None:
        """Starts the threads."""
        native.start("python3", self._begin)

    def size(self) -> int:
        """Ranks of the job."""
        return int(os.environ["HOROVOD_SIZE"])

    def rank(self) -> int:
        """This one."""
        return int(os.environ["HOROVOD_RANK"])

    def local_rank(self) -> int:
        """This one on its node."""
        return int(os.environ["HOROVOD_LOCAL_RANK"])

    def _begin(self) -> None:
        if self.size() > 1:
            native.start("python3")
        entries = os.environ.get("HOROVOD_THREAD_AFFINITY", "").split(",")
        if self.local_rank() < len(entries) and entries[self.local_rank()]:
            try:
                os.sched_setaffinity(0, {int(entries[self.local_rank()])})
            except OSError as error:
                print(f"[stand-in for Horovod] the background thread cannot be bound: {error}", file=sys.stderr)
