"""The batch script: text is data in it, it is the same by hand, and Slurm reads its header as it was meant."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep_slurm.job.identity import is_job_id, new_job_id, slurm_name
from lockstep_slurm.job.script import ScriptSite, directives, render
from lockstep_slurm.job.spec import JobSpec

SITE = ScriptSite(python="/opt/lockstep/bin/python", runs="/scratch/runs")
# What a spec may hold: any text on one line. Control characters are refused by the model, which has its own test.
lines = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), min_size=1, max_size=60
)


def spec_of(**sections: Any) -> JobSpec:
    return JobSpec.model_validate({"training": {"model": "digits-cnn", "data": "digits"}} | sections)


@pytest.fixture(scope="session")
def dumping_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stands where a rank's Python would: prints what reaches it, so that quoting can be seen from outside."""
    file = tmp_path_factory.mktemp("python") / "python"
    file.write_text(
        "#!/bin/bash\n[[ $2 == *import\\ lockstep* ]] && exit 0\n"
        '[[ $3 == lockstep_worker.rundir ]] && { cat > "$SEEN/spec"; echo "$SEEN"; exit; }\n'
        'env -0 > "$SEEN/env"\n'
    )
    file.chmod(0o755)
    return file


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(lines, min_size=1, max_size=4), arguments=st.lists(lines, max_size=3))
def test_text_reaches_the_rank_unchanged_and_is_never_run(
    values: list[str], arguments: list[str], dumping_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen = tmp_path_factory.mktemp("seen")
    (seen / "logs").mkdir()
    variables = {f"V{i}": value for i, value in enumerate(values)}
    spec = spec_of(environment={"variables": variables}, training={"script": "/a b/$(x)'.py", "arguments": arguments})
    script = seen / "job.sbatch"
    script.write_text(render(spec, ScriptSite(str(dumping_python), str(seen))))
    done = subprocess.run(
        ["bash", script], env={"PATH": "/usr/bin:/bin", "SEEN": str(seen)}, capture_output=True, check=True, cwd=seen
    )
    assert done.stderr == b""
    environment = dict(pair.split("=", 1) for pair in (seen / "env").read_text().split("\0") if pair)
    assert {name: environment[name] for name in variables} == variables
    assert JobSpec.model_validate(json.loads((seen / "spec").read_text())) == spec


def test_the_header_cannot_be_left_by_any_value() -> None:
    spec = spec_of(
        resources={"partition": "main", "constraint": "a&b", "mail_user": "a@b.example", "mail_type": ["END"]}
    )
    header = [line for line in render(spec, SITE).splitlines() if line.startswith("#SBATCH")]
    assert header == [f"#SBATCH --{o}" + ("" if v is None else f"={v}") for o, v in directives(spec)]


@pytest.mark.parametrize(
    ("time", "signal_seconds", "is_refused"),
    [
        ("2", 120, True), ("3", 120, True), ("4", 120, False), ("3:01", 120, False), ("0:5", 1, None),
        ("1:00:00", 3540, True), ("1-0", 120, False), ("0-0:03", 120, True), ("0-1:00:01", 3540, False),
        ("0", 120, False), (None, 65535, False),
    ],
)  # fmt: skip
def test_a_job_that_would_be_told_to_stop_as_it_starts_is_refused(
    time: str | None, signal_seconds: int, is_refused: bool | None
) -> None:
    sections = {"resources": {"time": time}, "checkpoint": {"signal_seconds": signal_seconds}}
    if is_refused is not False:
        with pytest.raises(ValueError, match="told to stop as soon as it starts" if is_refused else "time"):
            spec_of(**sections)
    else:
        assert ("signal", f"USR1@{signal_seconds}") in directives(spec_of(**sections))


def test_only_a_training_that_is_saved_is_told_that_its_time_ends() -> None:
    assert "signal" not in dict(directives(spec_of()))
    assert "scontrol requeue" not in render(spec_of(), SITE)
    assert "scontrol requeue" in render(spec_of(checkpoint={}), SITE)
    assert "scontrol requeue" not in render(spec_of(checkpoint={}, resources={"requeue": False}), SITE)


@pytest.mark.parametrize(
    ("told", "job", "requeue", "wanted"),
    [
        (None, "", 0, (3, False)),
        ("SIGUSR1", "", 0, (3, True)),
        ("SIGUSR1", "", 1, (3, True)),
        ("SIGTERM", "JobState=RUNNING PreemptTime=None", 0, (3, False)),
        ("SIGTERM", "JobState=RUNNING PreemptTime=2026-11-29T20:00:00", 0, (3, True)),
    ],
)
def test_what_was_told_to_stop_and_has_saved_goes_back_into_the_queue(
    told: str | None, job: str, requeue: int, wanted: tuple[int, bool], tmp_path: Path
) -> None:
    """The script's own function, with a ``scontrol`` that answers as Slurm's does."""
    (tmp_path / "exit").mkdir()
    if told is not None:
        (tmp_path / "exit" / "stopped-7-2.txt").write_text(f"{told}\n")
    (tmp_path / "scontrol").write_text(
        f'#!/bin/bash\n[[ $1 != show ]] || echo "JobId=7 {job} SuspendTime=None"\n'
        f'[[ $1 != ping ]] || echo "Slurmctld(primary) at c1 is UP"\n'
        f'[[ $1 != requeue ]] || {{ touch "{tmp_path}/asked-$2"; exit {requeue}; }}\n'
    )
    (tmp_path / "scontrol").chmod(0o755)
    script = render(spec_of(checkpoint={}), SITE)
    function = script[script.index("lockstep_go_on() {") : script.index("if [[ -n $lockstep_given ]]")]
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\nlockstep_run={tmp_path} lockstep_start=7-2\n{function}\nlockstep_go_on 3"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "asked-7").exists()) == wanted, done.stderr
    assert ("submit" in done.stderr or "does not take it back" in done.stderr) is (requeue == 1)


def test_a_controller_that_is_being_started_anew_is_asked_again_once_it_answers(tmp_path: Path) -> None:
    (tmp_path / "exit").mkdir()
    (tmp_path / "exit" / "stopped-7-2.txt").write_text("SIGUSR1\n")
    (tmp_path / "scontrol").write_text(
        f'#!/bin/bash\ncd {tmp_path}; echo "$1" >> asked\n'
        '[[ $1 != ping ]] || echo "Slurmctld(primary) at c1 is $([[ -e was-down ]] && echo UP || echo DOWN)"\n'
        "[[ $1 != ping ]] || touch was-down\n[[ $1 != requeue || -e was-down ]]\n"
    )
    (tmp_path / "scontrol").chmod(0o755)
    script = render(spec_of(checkpoint={}), SITE)
    function = script[script.index("lockstep_go_on() {") : script.index("if [[ -n $lockstep_given ]]")]
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\nlockstep_run={tmp_path} lockstep_start=7-2\n{function}\nlockstep_go_on 0"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "back in the queue" in done.stdout
    assert (tmp_path / "asked").read_text().split() == ["requeue", "ping", "ping", "requeue"]


def test_a_script_printed_by_hand_carries_no_job_id() -> None:
    assert render(spec_of(), SITE) == render(spec_of(), SITE)


def test_whole_nodes_come_with_all_their_memory() -> None:
    assert ("mem", "0") in directives(spec_of(resources={"exclusive": True}))
    assert ("mem", "4G") in directives(spec_of(resources={"exclusive": True, "mem": "4G"}))


@pytest.mark.parametrize(
    ("communication", "site_says", "wanted"),
    [
        ({}, "pmix", None),
        ({"backend": "mpi"}, None, None),
        ({"backend": "mpi"}, "pmix", "--mpi=pmix"),
        ({"backend": "mpi", "mpi": "pmi2"}, "pmix", "--mpi=pmi2"),
        ({"backend": "mpi"}, "mpirun", "mpirun"),
        ({"backend": "mpi", "mpi": "mpirun"}, "pmix", "mpirun"),
    ],
)
def test_mpi_is_started_as_the_spec_says_else_the_site(
    communication: dict[str, str], site_says: str | None, wanted: str | None
) -> None:
    site = replace(SITE, mpi=site_says, mpirun="/opt/my mpi/bin/mpirun")
    spec = spec_of(communication=communication, placement={"ranks_per_node": 2, "cpus_per_rank": 3})
    script = render(spec, site)
    assert (" srun --export=ALL" in script) == (wanted != "mpirun")
    assert re.findall(r"--mpi=\w+", script) == ([wanted] if wanted not in {None, "mpirun"} else [])
    if wanted == "mpirun":
        assert "'/opt/my mpi/bin/mpirun' -np 2 --map-by ppr:2:node --bind-to none " in script
        assert '"--cpus-per-task=6 --cpu-bind=cores"' in script


def test_a_set_up_may_do_what_it_likes_to_the_shell(dumping_python: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    python = tmp_path / "python"
    setup = tmp_path / "set up.sh"
    # It is what makes the Python start; it has options of its own, changes the folder, and fails in between.
    setup.write_text(
        f'[ $# = 0 ] || return 5\nln -s "{dumping_python}" "{python}"\nset -- a b\nfalse | true\n'
        f'cd "{tmp_path}/elsewhere"\npython=x runs=x run=x\nexport FROM_SETUP=1\n'
    )
    variables = {"python": "3.9", "runs": "7", "run": "8"}
    script = tmp_path / "job.sbatch"
    spec = spec_of(environment={"setup_file": str(setup), "variables": variables})
    script.write_text(render(spec, ScriptSite(str(python), str(tmp_path))))
    for arguments in ([], [str(tmp_path)]):
        python.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "job.sbatch", *arguments],
            env={"PATH": "/usr/bin:/bin", "SEEN": str(tmp_path)}, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        environment = dict(pair.split("=", 1) for pair in (tmp_path / "env").read_text().split("\0") if pair)
        assert environment.items() >= (variables | {"FROM_SETUP": "1"}).items()


@pytest.mark.parametrize("given", [False, True], ids=["by hand", "by the service"])
@pytest.mark.parametrize(("lines", "wanted"), [(None, "0022"), ("umask 007", "0007")])
def test_the_training_has_the_umask_of_whoever_submits_and_the_run_directory_is_made_with_077(
    given: bool, lines: str | None, wanted: str, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/bash\ncd '{tmp_path}'\n[[ $2 == *import\\ lockstep* ]] && exit 0\n"
        "[[ $3 == lockstep_worker.rundir ]] && { umask > of-rundir; pwd; exit; }\numask > of-ranks\n"
    )
    python.chmod(0o755)
    environment = {}
    if lines is not None:
        (tmp_path / "setup.sh").write_text(lines + "\n")
        environment["setup_file"] = str(tmp_path / "setup.sh")
    script = tmp_path / "job.sbatch"
    script.write_text(render(spec_of(environment=environment), ScriptSite(str(python), str(tmp_path))))
    arguments = [str(tmp_path)] if given else []
    subprocess.run(["bash", script, *arguments], env={"PATH": "/usr/bin:/bin"}, umask=0o022, check=True, timeout=60)
    assert (tmp_path / "of-ranks").read_text().strip() == wanted
    assert (tmp_path / "of-rundir").read_text().strip() == "0077"


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("code", [0, 7])
def test_a_log_that_cannot_be_written_changes_nothing_of_how_the_training_ends(
    code: int, saves: bool, tmp_path: Path
) -> None:
    for name in ("logs", "claims", "exit"):
        (tmp_path / name).mkdir()
    for name, text in {
        "python": f'[[ $2 == *import\\ lockstep* ]] || {{ cat > /dev/null; echo "{tmp_path}"; }}',
        "srun": f'echo SIGUSR1 > "{tmp_path}/exit/stopped-7-0.txt"; echo trained; exit {code}',
        "scontrol": f'touch "{tmp_path}/asked-$1"',
        "tee": 'cat; echo "tee: no space left on device" >&2; exit 1',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    script = tmp_path / "job.sbatch"
    spec = spec_of(**({"checkpoint": {}} if saves else {}))
    script.write_text(render(spec, ScriptSite(str(tmp_path / "python"), str(tmp_path))))
    around = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", script], env=around, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "trained" in done.stdout
    assert "no space left" in done.stderr
    assert (tmp_path / "asked-requeue").exists() is saves


def test_a_venv_of_the_users_replaces_the_sites_python() -> None:
    assert "lockstep_python=(/home/me/venv/bin/python)\n" in render(
        spec_of(environment={"venv": "/home/me/venv/"}), SITE
    )


def test_the_specs_subnet_beats_the_sites_and_reaches_every_launch_line() -> None:
    assert "--subnet" not in render(spec_of(), SITE)
    site = dataclasses.replace(SITE, subnets=("10.1.0.0/16", "10.2.0.0/16"), ports="20000-29999")
    ours = "--subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --ports 20000-29999"
    assert render(spec_of(), site).count(ours) == 2
    theirs = render(spec_of(communication={"subnet": "10.3.0.0/16"}), site)
    assert theirs.count("--subnet 10.3.0.0/16 --ports 20000-29999") == 2
    assert "10.1.0.0" not in theirs


def test_job_ids_sort_by_time_and_are_found_in_slurms_names() -> None:
    ids = [new_job_id() for _ in range(50)]
    assert all(map(is_job_id, ids))
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)
    assert slurm_name("a.b-c", ids[0]) == f"a.b-c.{ids[0]}"
    assert not is_job_id("../../etc")


def test_slurm_reads_the_header_as_it_was_meant(cluster: Any, tmp_path: Path) -> None:
    spec = spec_of(
        name="header.test",
        resources={
            "nodes": 2, "partition": "main", "time": "1:30:00", "requeue": False, "begin": "now+2hours",
            "mail_user": "a@b.example", "mail_type": ["END", "FAIL"], "mem": "100M",
        },
        placement={"cpus_per_rank": 1},
    )  # fmt: skip
    script = tmp_path / "job.sbatch"
    script.write_text(render(spec, SITE))
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "SLURM_CONF": str(cluster.slurm_conf)}

    def slurm(*argv: str) -> str:
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path).stdout

    job = slurm("sbatch", "--parsable", "--hold", str(script)).strip()
    try:
        shown = dict(
            pair.split("=", 1) for pair in slurm("scontrol", "show", "job", job, "--oneliner").split() if "=" in pair
        )
    finally:
        slurm("scancel", job)
    assert shown["JobName"] == "header.test"
    assert shown["NumNodes"] in {"2", "2-2"}  # from-to, until the scheduler has looked at the job
    assert shown["Partition"] == "main"
    assert shown["TimeLimit"] == "01:30:00"
    assert shown["Requeue"] == "0"
    assert shown["MailType"] == "END,FAIL"
    assert shown["MailUser"] == "a@b.example"
    assert shown["MinMemoryNode"] == "100M"
    assert shown["CPUs/Task"] == "1"
    assert shown["NtasksPerN:B:S:C"].startswith("1:")
