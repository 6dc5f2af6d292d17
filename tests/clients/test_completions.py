"""The completion file, again and again: what was read is not read anew, whatever becomes of the file meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockstep_slurm.client.jobcomp import Completions

LINE = (
    "JobId={id} UserId=ada(1000) GroupId={group} Name={name} JobState={state} Partition=main TimeLimit=5 "
    "StartTime=2026-11-23T06:33:18 EndTime=2026-11-23T06:33:19 NodeList=node2 NodeCnt=1 ProcCnt=1 WorkDir=/tmp "
    "ReservationName= Tres=cpu=1 Account= QOS= WcKey= Cluster=unknown "
    "SubmitTime=2026-11-23T06:33:17 EligibleTime=2026-11-23T06:33:17 DerivedExitCode=0:0 ExitCode=0:0 \n"
)


def line(number: int, name: str = "digits", state: str = "COMPLETED", group: str = "ada(1000)") -> str:
    return LINE.format(id=number, name=f"{name}.{number}", state=state, group=group)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jobcomp.log"
    path.write_text("".join(line(number) for number in range(1, 4)))
    return path


@pytest.fixture(params=["ada", "1000"])
def completions(file: Path, request: pytest.FixtureRequest) -> Completions:
    return Completions(file, request.param)


def ids(completions: Completions, *asked: int) -> list[int]:
    """Those that are known by number, which must be known by name as well."""
    found = [job.id for job in completions.by_id(asked)]
    assert [job.id for job in completions.by_name([f"digits.{one}" for one in asked])] == found
    return found


def read_so_far() -> int:
    """Bytes that this process has read from anywhere."""
    counts = dict(text.split(": ") for text in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def append(file: Path, text: str) -> None:
    with file.open("a") as end:
        end.write(text)


class TestCompletions:
    def test_what_is_added_is_found_beside_what_was_there(self, file: Path, completions: Completions) -> None:
        assert ids(completions, 1, 3, 4) == [1, 3]
        append(file, line(4))
        assert ids(completions, 4, 3) == [3, 4]

    def test_a_line_that_is_still_on_its_way_is_found_once_it_is_whole(
        self, file: Path, completions: Completions
    ) -> None:
        append(file, line(4)[:-20])
        assert ids(completions, 3, 4) == [3]
        append(file, line(4)[-20:])
        assert ids(completions, 3, 4) == [3, 4]

    def test_all_runs_of_a_job_are_counted_however_late_they_come(self, file: Path, completions: Completions) -> None:
        append(file, line(4, state="PENDING"))
        assert ids(completions, 4) == [4]
        append(file, line(5) + line(4))
        assert [(job.state, job.restarts) for job in completions.by_id([4])] == [("PENDING", 0), ("COMPLETED", 1)]

    def test_other_peoples_jobs_are_left_out_and_blanks_in_names_are_not_the_names_end(
        self, file: Path, completions: Completions
    ) -> None:
        append(file, line(4).replace("ada(1000)", "bob(2000)") + line(5, "a JobState=FAILED b"))
        assert completions.by_id([4]) == []
        assert [job.id for job in completions.by_name(["a JobState=FAILED b.5"])] == [5]

    @pytest.mark.parametrize("group", ["domain users(10513)", "us (old) ers(7)", "(null)(7)"])
    def test_blanks_in_a_groups_name_are_not_the_names_begin(
        self, file: Path, completions: Completions, group: str
    ) -> None:
        append(file, line(4, group=group) + line(5, "x (7) Name=digits", group=group))
        assert ids(completions, 4) == [4]
        # A name that looks like the end of a group is a name to its end.
        assert completions.by_name(["digits.5"]) == []
        assert [job.id for job in completions.by_name(["x (7) Name=digits.5"])] == [5]
        assert [job.id for job in completions.by_id([5])] == [5]

    def test_a_name_of_another_encoding_is_as_the_queue_has_it(self, file: Path, completions: Completions) -> None:
        with file.open("ab") as end:
            end.write(line(4, "caf?").encode().replace(b"?", b"\xe9"))
        (job,) = completions.by_name([r"caf\xe9.4"])
        assert (job.id, job.name) == (4, r"caf\xe9.4")

    def test_another_file_in_its_place_is_read_from_its_beginning(self, file: Path, completions: Completions) -> None:
        assert ids(completions, 3) == [3]
        file.rename(file.with_suffix(".1"))
        file.write_text("".join(line(number) for number in range(3, 9)))
        assert ids(completions, 1, 3, 8) == [3, 8]

    @pytest.mark.parametrize("count", [0, 1, 3, 50])
    def test_one_that_was_made_empty_and_has_grown_since_as_well(
        self, file: Path, completions: Completions, count: int
    ) -> None:
        assert ids(completions, 1, 2, 3) == [1, 2, 3]
        with file.open("r+") as same:
            same.truncate()
            same.write("".join(line(number) for number in range(11, 11 + count)))
        assert ids(completions, 1, 2, 3, 11, 60) == [number for number in (11, 60) if number < 11 + count]

    def test_a_look_does_not_cost_what_others_have_done_before(self, file: Path, completions: Completions) -> None:
        append(file, "".join(line(number) for number in range(10, 5000)))
        size = file.stat().st_size
        assert ids(completions, 10) == [10]
        append(file, line(5000))
        before = read_so_far()
        assert ids(completions, 11, 5000) == [11, 5000]
        assert read_so_far() - before < size / 10
