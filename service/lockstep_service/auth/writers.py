"""``Writers``: which job tokens were found right lately, so that not every batch of records asks the database first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

_MOST = 4096


@dataclass
class Writers:
    """By job, the hash of its token that was right when it was last looked up; those used least lately are forgotten.

    It spares a look-up, and decides nothing: the transaction that stores the records compares again, with the row.
    """

    _lock: Lock = field(default_factory=Lock)
    _known: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def of(self, job_id: str) -> str | None:
        """The hash that is known of the job's token."""
        with self._lock:
            if job_id in self._known:
                self._known.move_to_end(job_id)
            return self._known.get(job_id)

    def learn(self, job_id: str, token_hash: str) -> None:
        """This hash was right just now."""
        with self._lock:
            self._known[job_id] = token_hash
            self._known.move_to_end(job_id)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
