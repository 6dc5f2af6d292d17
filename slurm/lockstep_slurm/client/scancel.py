"""``scancel``: how a job is cancelled."""

from __future__ import annotations

import re

from lockstep_slurm.client.runner import Runner, failure

_ENDED = re.compile(r"already (completing or completed|finished)", re.IGNORECASE)
_ERROR = re.compile(r"error", re.IGNORECASE)


def cancel(runner: Runner, job_id: int) -> None:
    """Cancels a job; one that has ended already is left as it is."""
    # Without --verbose, scancel is silent and exits 0 for a job that Slurm does not know (22.05).
    answer = runner.run(["scancel", "--verbose", str(job_id)])
    failed = answer.code != 0 or _ERROR.search(answer.err) is not None
    if failed and not _ENDED.search(answer.err):
        raise failure("scancel", answer)
