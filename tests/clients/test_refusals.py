"""What Slurm's no means: its own words, each sorted as a person would have to."""

from __future__ import annotations

import pytest

from lockstep_slurm.client.refusals import Meaning, meaning

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


def as_sbatch_says(*words: str) -> str:
    return "sbatch: " + "; ".join(
        f"sbatch: error: {one}" for one in (*words[:-1], f"Batch job submission failed: {words[-1]}")
    )


# slurm_strerror's words are those of 22.05; the limits' names are those of job_state_reason.
@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ("own limits", ["QOSMaxSubmitJobPerUserLimit", POLICY]),
        ("own limits", ["QOSGrpSubmitJobsLimit", POLICY]),
        ("own limits", ["AssocMaxSubmitJobLimit", POLICY]),
        ("own limits", ["AssocGrpSubmitJobsLimit", POLICY]),
        ("own limits", ["QOSMaxJobsPerUserLimit", POLICY]),
        ("own limits", ["AssocMaxJobsLimit", POLICY]),
        ("own limits", ["AssocGrpJobsLimit", POLICY]),
        ("own limits", ["QOSMaxSubmitJobPerAccountLimit", POLICY]),
        ("own limits", ["QOSJobLimit", POLICY]),
        ("own limits", ["Requested account has breached requested QOS usage threshold"]),
        ("for good", ["QOSMaxCpuPerUserLimit", POLICY]),
        ("for good", ["QOSMaxWallDurationPerJobLimit", POLICY]),
        ("for good", ["AssocMaxNodePerJobLimit", POLICY]),
        ("for good", ["AssocGrpCpuLimit", POLICY]),
        ("for good", ["QOSTimeLimit", POLICY]),
        ("unclear", ["AssocGrpCPUMinutesLimit", POLICY]),
        ("unclear", ["QOSGrpCPURunMinutesLimit", POLICY]),
        ("unclear", [POLICY]),
        ("unclear", ["please name a project with --comment=project:...", "Unspecified error"]),
        ("unclear", ["Invalid user id"]),
        ("unclear", ["Unable to open file /shared/invalid/job.sbatch"]),
        ("unclear", ["Batch script is empty!"]),
        ("unclear", ["the script /shared/job.sbatch cannot be read: Stale file handle"]),
        ("cluster", ["Rate limit exceeded, please retry later"]),
        ("cluster", ["Rate limit exceeded, please retry momentarily"]),
        ("cluster", ["Slurm temporarily unable to accept job, sleeping and retrying"]),
        ("cluster", ["Slurm job queue full, sleeping and retrying"]),
        ("cluster", ["I/O error writing script/environment to file"]),
        ("cluster", ["Unable to create job record, try again"]),
        ("cluster", ["System submissions disabled"]),
        ("resources", ["Requested nodes are busy"]),
        ("resources", ["Required node not available (down, drained or reserved)"]),
        ("resources", ["Required partition not available (inactive or drain)"]),
        ("resources", ["Requested partition configuration not available now"]),
        ("resources", ["Requested reservation not usable now"]),
        ("resources", ["Job can not start due to maintenance reservation."]),
        ("for good", ["Invalid account or account/partition combination specified"]),
        ("for good", ["Invalid partition name specified"]),
        ("for good", ["Invalid qos specification"]),
        ("for good", ["Invalid feature specification"]),
        ("for good", ["Requested time limit is invalid (missing or exceeds some limit)"]),
        ("for good", ["Requested reservation is invalid"]),
        ("for good", ["Requested node configuration is not available"]),
        ("for good", ["More processors requested than permitted"]),
        ("for good", ["Node count specification invalid"]),
        ("for good", ["User's group not permitted to use this partition"]),
        ("for good", ["Memory required by task is not available"]),
        ("for good", ["Access/permission denied"]),
    ],
)  # fmt: skip
def test_slurms_words_are_sorted(expected: Meaning, words: list[str]) -> None:
    assert meaning(as_sbatch_says(*words)) == expected
    # pyslurm has the last words only, and may say them in another case.
    if len(words) == 1:
        assert meaning(f"pyslurm: submit: {words[0].upper()}") == expected


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: sbatch: unrecognized option '--no-such-option'",
        "sbatch: sbatch: error: This does not look like a batch script.",
        "sbatch: sbatch: error: Batch script contains DOS line breaks (\\r\\n)",
        "the output /a/job\\x.log has a backslash, which Slurm cannot write; rename it",
    ],
)
def test_what_sbatch_itself_refuses_is_refused_for_good(said: str) -> None:
    assert meaning(said) == "for good"
