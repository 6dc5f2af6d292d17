"""The clients: each submission is posted with its Idempotency-Key until it is answered, as a real client would."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

AT_ONCE = 8
"""Clients."""
PATIENCE = 30.0
"""Seconds for one answer."""
IMPATIENT = 0.1
"""The part of all tries in which a client does not wait for the answer, and the part of all answers that it forgets."""
IMPATIENCE = 0.02
"""Seconds after which it then gives up."""
PAUSE = 0.3
"""Seconds between two tries."""
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})
"""Answers after which a client tries again; any other but 200 and 201 is a finding."""


class Gate:
    """Lets a submission through as long as not too many are outstanding; a fault may let more through.

    What a fault let through early is waited for behind it: else all would be submitted by the middle of a run, and
    what goes wrong after it would meet no submission.
    """

    def __init__(self, outstanding: int) -> None:
        self._outstanding = outstanding
        self._most = outstanding
        """So many may go, all in all, up to now."""
        self._let_through = 0
        self._changed = threading.Condition()

    @property
    def open(self) -> bool:
        """Whether the next submission may go."""
        return self._let_through < self._most

    def wait(self) -> None:
        """Returns when the next submission may go."""
        with self._changed:
            self._changed.wait_for(lambda: self.open)
            self._let_through += 1

    def trained(self, count: int) -> None:
        """So many have trained by now."""
        with self._changed:
            self._most = max(self._most, count + self._outstanding)
            self._changed.notify_all()

    def more(self, count: int) -> None:
        """So many more may go now, whatever is outstanding."""
        with self._changed:
            self._most = max(self._most, self._let_through + count)
            self._changed.notify_all()


@dataclass
class Answers:
    """What the clients were told."""

    ids: dict[int, set[str]] = field(default_factory=dict)
    """By submission, every job id that it was ever answered: one, if the key does what it says."""
    tries: Counter[str] = field(default_factory=Counter)
    """By status, or by the kind of failure where there was none."""
    findings: list[str] = field(default_factory=list)
    """Answers that no client should get."""


class Clients:
    """All of them; ``spec`` makes the body of a submission from its number."""

    def __init__(
        self, url: str, token: str, *, seed: int, count: int, gate: Gate, spec: Callable[[int], dict[str, Any]]
    ) -> None:
        self.answers = Answers()
        self._url = f"{url}/api/v1/jobs"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._seed = seed
        self._gate = gate
        self._spec = spec
        self._lock = threading.Lock()
        self._left = iter(range(count))
        self._threads = [threading.Thread(target=self._run, name=f"client-{n}", daemon=True) for n in range(AT_ONCE)]

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        """Submissions that were answered."""
        with self._lock:
            return len(self.answers.ids)

    def _run(self) -> None:
        with httpx.Client(headers=self._headers) as http:
            while True:
                with self._lock:
                    number = next(self._left, None)
                if number is None:
                    return
                self._gate.wait()
                self._submit(http, number)

    def _submit(self, http: httpx.Client, number: int) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        key, body = f"faults-{self._seed}-{number}", self._spec(number)
        forgotten = chance.random() < IMPATIENT
        while True:
            patience = IMPATIENCE if chance.random() < IMPATIENT else PATIENCE
            try:
                answer = http.post(self._url, json=body, headers={"Idempotency-Key": key}, timeout=patience)
            except httpx.TransportError as error:
                self._note(type(error).__name__)
                time.sleep(PAUSE)
                continue
            self._note(str(answer.status_code))
            if answer.status_code in {200, 201}:
                with self._lock:
                    self.answers.ids.setdefault(number, set()).add(answer.json()["id"])
                if not forgotten:
                    return
                forgotten = False  # asked once more, as by somebody who did not get that answer
            elif answer.status_code not in RETRIED:
                with self._lock:
                    said = f"submission {number}: {answer.status_code} {answer.text[:300]}"
                    self.answers.findings.append(said)
                return
            else:
                time.sleep(PAUSE)

    def _note(self, what: str) -> None:
        with self._lock:
            self.answers.tries[what] += 1
