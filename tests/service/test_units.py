"""The systemd units: systemd itself finds nothing wrong in them, and what they start tells it when it is ready."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*/*.service"))


def unit(file: Path) -> ConfigParser:
    """A unit as its sections and settings."""
    parser = ConfigParser(interpolation=None, strict=False, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file, "utf-8")
    return parser


def verify(folder: Path, file: Path, *, user: bool) -> str:
    """What ``systemd-analyze verify`` finds wrong; it exits with 0 for most of it."""
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not installed")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(
        [verifier, *(["--user"] if user else []), "verify", str(file)],
        env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stderr + done.stdout + (f"exit code {done.returncode}" if done.returncode else "")


def installed(folder: Path) -> Path:
    """``lockstep`` where the units look for it in the home ``folder``."""
    command = folder / ".local" / "share" / "lockstep" / "bin" / "lockstep"
    command.parent.mkdir(parents=True)
    command.symlink_to(Path(sys.executable).parent / "lockstep")
    return command


def test_there_are_units_for_a_user_and_for_an_administrator() -> None:
    assert [str(file.relative_to(FOLDER)) for file in UNITS] == [
        "system/lockstep@.service",
        "user/lockstep-api.service",
        "user/lockstep-dispatch.service",
        "user/lockstep.service",
    ]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_systemd_finds_nothing_wrong(file: Path, tmp_path: Path) -> None:
    command = installed(tmp_path)
    # The administrator's installation is not on this machine; everything else is as it is shipped.
    copy = tmp_path / file.name
    copy.write_text(file.read_text("utf-8").replace("/opt/lockstep/bin/lockstep", str(command)), "utf-8")
    for other in UNITS:
        if other.parent == file.parent and other != file:
            shutil.copy(other, tmp_path)
    assert verify(tmp_path, copy, user=file.parent.name == "user") == ""


def test_systemd_would_find_a_wrong_word(tmp_path: Path) -> None:
    installed(tmp_path)
    copy = tmp_path / "lockstep.service"
    copy.write_text((FOLDER / "user" / "lockstep.service").read_text("utf-8").replace("=notify", "=notified"), "utf-8")
    assert "notified" in verify(tmp_path, copy, user=True)


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_restart_ends_no_job_of_the_local_client(file: Path) -> None:
    service = unit(file)["Service"]
    if "--role api" not in service["ExecStart"]:
        assert service["KillMode"] == "process"


def test_what_the_unit_starts_tells_systemd_that_it_is_ready_and_ends_when_asked(tmp_path: Path) -> None:
    installed(tmp_path)
    command = shlex.split(
        unit(FOLDER / "user" / "lockstep.service")["Service"]["ExecStart"].replace("%h", str(tmp_path))
    )
    command[command.index("--port") + 1] = "0"  # another test may have that one
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(120)
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert manager.recv(100) == b"READY=1"
            assert (tmp_path / ".lockstep" / "service.json").exists()
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    # Not on a terminal: one JSON object a line, from the first to the last.
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert not [line for line in lines if "color_message" in line or "\x1b" in line["message"]]
