"""The ``#SBATCH`` header and pyslurm's submit description come from one spec; what cannot be said is never left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockstep_slurm.client.protocol import Submission
from lockstep_slurm.client.pyslurm_description import NoWordsError, describe, header
from lockstep_slurm.job.script import ScriptSite, directives, render
from lockstep_slurm.job.spec import JobSpec, PlacementSpec, Resources

SUBMISSION = Submission(Path("/run/job.sbatch"), "tag", Path("/100%/logs/job-%j.log"), Path("/run"), ("/run",))
EVERYTHING = JobSpec.model_validate(
    {
        "name": "everything",
        "training": {"model": "digits-mlp", "data": "digits"},
        "placement": {"ranks_per_node": 2, "cpus_per_rank": 3},
        "checkpoint": {"signal_seconds": 90},
        "resources": {
            "nodes": 2,
            "partition": "main",
            "account": "physics",
            "qos": "normal",
            "reservation": "maintenance",
            "constraint": "fast&big",
            "mem": "1500K",
            "time": "3:30",
            "exclusive": True,
            "requeue": False,
            "mail_user": "a@b.org",
            "mail_type": ["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT"],
            "begin": "now+2hours",
        },
    }
)


def script(*options: str, shebang: str = "#!/bin/bash") -> str:
    return "\n".join([shebang, *(f"#SBATCH --{option}" for option in ("export=NONE", *options)), "", "true", ""])


def fields(*options: str) -> dict[str, object]:
    return describe(SUBMISSION, script(*options))


class TestOneSpec:
    def test_the_header_that_is_read_is_the_one_that_was_written(self) -> None:
        text = render(EVERYTHING, ScriptSite("/python", "/runs"))
        assert header(text) == dict(directives(EVERYTHING))

    def test_every_resource_of_a_spec_is_in_the_description(self) -> None:
        spec = EVERYTHING
        assert set(Resources.model_fields) == set(spec.resources.model_fields_set), "a key without a value here"
        told = describe(SUBMISSION, render(spec, ScriptSite("/python", "/runs")))
        assert told == {
            "name": "tag",
            "nodes": 2,
            "ntasks": 4,
            "ntasks_per_node": 2,
            "cpus_per_task": 3,
            "partitions": "main",
            "account": "physics",
            "qos": "normal",
            "reservations": "maintenance",
            "constraints": "fast&big",
            "memory_per_node": 2,
            "time_limit": "3:30",
            "signal": "10@90",
            "resource_sharing": "exclusive",
            "is_requeueable": False,
            "mail_user": "a@b.org",
            "mail_types": ["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT"],
            "begin_time": "now+2hours",
            "log_files_open_mode": "append",
            "standard_in": "/dev/null",
            "standard_output": "/100%%/logs/job-%j.log",
            "working_directory": "/run",
            "script": "/run/job.sbatch",
            "script_args": ["/run/job.sbatch", "/run"],
            "get_user_environment": True,
            "environment": {
                "SLURM_EXPORT_ENV": "NONE",
                "SLURM_JOB_NAME": "tag",
                "SLURM_OPEN_MODE": "a",
                "SLURM_SUBMIT_DIR": "/run",
                "SLURM_NTASKS_PER_NODE": "2",
                "SLURM_CPUS_PER_TASK": "3",
            },
        }

    def test_the_smallest_spec_has_words_too(self) -> None:
        spec = JobSpec.model_validate({"training": {"model": "digits-mlp", "data": "digits"}})
        assert PlacementSpec.model_validate({}) == spec.placement
        told = describe(SUBMISSION, render(spec, ScriptSite("/python", "/runs")))
        assert (told["nodes"], told["ntasks"], told["is_requeueable"]) == (1, 1, True)
        assert "memory_per_node" not in told


class TestHeader:
    def test_it_ends_at_the_first_command(self) -> None:
        head = "#!/bin/sh\n# a comment\n\n  #SBATCH --nodes=3\n#SBATCH --nodes=2  \n##SBATCH --qos=x\n"
        assert header(f"{head}true\n#SBATCH --qos=y\n") == {"nodes": "2"}

    def test_the_last_of_several_counts(self) -> None:
        assert header("#!x\n#SBATCH --nodes=2\n#SBATCH --nodes=3\n") == {"nodes": "3"}
        assert header("#!x\n#SBATCH --requeue\n#SBATCH --no-requeue\n") == {"no-requeue": None}
        assert header("#!x\n#SBATCH --no-requeue\n#SBATCH --requeue\n") == {"requeue": None}

    @pytest.mark.parametrize(
        "line",
        [
            "#SBATCH -N 2", "#SBATCH --nodes 2", "#SBATCH --nodes=2 --ntasks=2", "#SBATCH --comment='a b'",
            '#SBATCH --comment="x"', "#SBATCH --nodes=2 # two", "#SBATCH --nodes=2#", "#SBATCH", "#SBATCH hetjob",
            "#SBATCH--nodes=2", "#SLURM --nodes=2", "#SBATCH --nodes=\\2", "#SBATCH --nodes=", "#SBATCH --Nodes=2",
        ],
    )  # fmt: skip
    def test_another_form_of_line_has_no_words(self, line: str) -> None:
        with pytest.raises(NoWordsError, match="form"):
            header(f"#!/bin/bash\n{line}\ntrue\n")


class TestDescribe:
    @pytest.mark.parametrize(
        "options",
        [
            ("gres=gpu:1", "ntasks=1"), ("export=ALL", "ntasks=1"), ("ntasks=1", "mem=0"), ("ntasks=1", "mem=lots"),
            ("ntasks=1", "time=0"), ("ntasks=1", "time=soon"), ("ntasks=1", "begin=16"), ("ntasks=1", "exclusive=user"),
            ("ntasks=1", "mail-type=ALL"), ("ntasks=1", "mail-type=ARRAY_TASKS"), ("nodes=2-4", "ntasks=2"),
            ("ntasks=0",), ("ntasks=4",), ("nodes=2",), ("nodes=2", "ntasks=2", "ntasks-per-node=1"), (),
            ("ntasks=1", "signal=B:USR1@60"), ("ntasks=1", "signal=USR1"), ("ntasks=1", "signal=NONE@5"),
            ("ntasks=1", "partition"), ("ntasks=1", "requeue=yes"), ("ntasks=1", "error=x"), ("ntasks=1", "chdir=/"),
        ],
    )  # fmt: skip
    def test_what_pyslurm_would_ask_for_otherwise_has_no_words(self, options: tuple[str, ...]) -> None:
        with pytest.raises(NoWordsError):
            fields(*options)

    def test_without_export_none_there_are_no_words(self) -> None:
        with pytest.raises(NoWordsError, match="export"):
            describe(SUBMISSION, "#!/bin/sh\n#SBATCH --ntasks=1\n")

    @pytest.mark.parametrize(
        "text", [script("ntasks=1", shebang="true"), script("ntasks=1").replace("\n", "\r\n"), "#!x\0"]
    )
    def test_a_script_that_sbatch_has_words_about_is_left_to_it(self, text: str) -> None:
        with pytest.raises(NoWordsError, match="sbatch"):
            describe(SUBMISSION, text)

    def test_an_output_that_slurm_cannot_write_is_left_to_sbatch(self) -> None:
        with pytest.raises(NoWordsError, match="backslash"):
            describe(replace(SUBMISSION, output=Path("/run/job\\x.log")), script("ntasks=1"))

    @pytest.mark.parametrize("argument", ["", "\udcff", "a\0b"])
    def test_an_argument_that_would_not_arrive_has_no_words(self, argument: str) -> None:
        with pytest.raises(NoWordsError):
            describe(replace(SUBMISSION, arguments=("x", argument, "y")), script("ntasks=1"))

    @pytest.mark.parametrize(
        ("mem", "mib"), [("1K", 1), ("1024K", 1), ("1025K", 2), ("500", 500), ("4G", 4096), ("1T", 1 << 20)]
    )
    def test_memory_is_whole_mebibytes(self, mem: str, mib: int) -> None:
        assert fields("ntasks=1", f"mem={mem}")["memory_per_node"] == mib

    @pytest.mark.parametrize(("time", "limit"), [("5", 5), ("0:30", "0:30"), ("1-12", "1-12"), ("1:00:00", "1:00:00")])
    def test_mere_minutes_are_a_number(self, time: str, limit: object) -> None:
        assert fields("ntasks=1", f"time={time}")["time_limit"] == limit

    def test_held_is_a_priority_of_nothing(self) -> None:
        assert "priority" not in fields("ntasks=1")
        assert describe(replace(SUBMISSION, hold=True), script("ntasks=1"))["priority"] == 0
