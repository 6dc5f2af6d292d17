"""What Slurm's no to a submit means for the job: one table of Slurm's own words. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal

Meaning = Literal["for good", "own limits", "cluster", "resources", "unclear"]
"""``for good``: it will never be taken as it is. ``own limits``: it waits for other jobs of its user or account.

``cluster``: nothing is taken just now, whatever it is. ``resources``: its nodes, partition or reservation cannot be had
just now. ``unclear``: Slurm's words are the same for what passes and for what does not.
"""

# The words are slurm_strerror's and the names of job_state_reason (22.05 and 24.11), which slurmctld sends beside
# "Job violates accounting/QOS policy", and those of sbatch itself. The first line that fits decides.
_TABLE: Final[tuple[tuple[Meaning, str], ...]] = (
    # How many jobs, of whoever: fewer of them, and it is taken.
    ("own limits", r"\b(Assoc|Association|QOS)(Max|Grp)?(Submit)?Jobs?(PerUser|PerAccount)?Limit\b"),
    ("own limits", r"\b(Assoc|QOS)(Max|Grp)SubmitJobs?(PerUser|PerAccount)?Limit\b"),
    ("own limits", r"breached requested QOS usage threshold"),
    ("cluster", r"job queue full|unable to accept job|temporarily disabled|Unable to create job record"),
    ("cluster", r"I/O error writing script/environment|rate limit exceeded"),
    # It was written a moment before, so it is the file system that hiccups.
    ("unclear", r"Unable to open file|Batch script (is empty|contains only whitespace)|cannot be read"),
    ("cluster", r"presently disabled|submissions disabled|try a different controller|DB index is being set"),
    ("resources", r"nodes are busy|configuration not available now|node not available|partition not available"),
    ("resources", r"Partition in DOWN state|reservation (is in use|not usable now)|maintenance reservation"),
    ("resources", r"Switch resources currently not available|Required ports are in use|Waiting for burst buffer"),
    # A budget of minutes is used up, and filled again when usage decays: whether it ever suffices, nobody says.
    ("unclear", r"\b(Assoc|QOS)Grp\w*(Minutes|RunMinutes|Wall)\w*Limit\b"),
    # What one job may ask for at most (with DenyOnLimit slurmctld compares the job alone with the limit).
    ("for good", r"\b(Assoc|QOS)(Max|Grp|Min)\w+Limit\b|\bQOSMinCpuNotSatisfied\b"),
    ("for good", r"\b(QOS|Association|Partition)(Time|Resource|Node)Limit\b"),
    ("unclear", r"Job violates accounting/QOS policy"),
    # The controller's directory of users may not answer just now.
    ("unclear", r"Invalid (user|group) id"),
    ("for good", r"\binvalid\b|unrecognized option|option requires an argument|is no batch script"),
    ("for good", r"does not look like a batch script|DOS line breaks|has a backslash"),
    ("for good", r"No partition specified|Access/permission denied|not permitted to use this partition"),
    ("for good", r"nodes not in this partition|More processors requested than permitted|more tasks than available"),
    ("for good", r"Job size specification needs|Job script not specified|other parameter too long"),
    ("for good", r"Requested node configuration is not available|Memory required by task is not available"),
    ("for good", r"Access denied to requested reservation|Burst Buffer (permission denied|resource limit exceeded)"),
    ("for good", r"Time limit specification required|option unsupported by configured|not supported on this system"),
    ("for good", r"Active features not subset|Exceeded job memory limit|Circular job dependency"),
)
_COMPILED: Final = tuple((meaning, re.compile(words, re.IGNORECASE)) for meaning, words in _TABLE)


def meaning(said: str) -> Meaning:
    """What a refusal in these words means; words of which nobody knows anything, such as a site's own, are unclear."""
    return next((found for found, words in _COMPILED if words.search(said)), "unclear")
