"""What people wrote into Slurm on a terminal of another encoding is shown, and stops nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.boundary import Application
from lockstep_service.clusters import service as clusters
from lockstep_service.settings import Settings
from lockstep_slurm.client import CommandClient
from lockstep_slurm.client.protocol import SlurmRefusedError

from .conftest import Json

SCONTROL = r"""#!/bin/sh
case "$*" in
*"show nodes") printf 'NodeName=node1 CPUTot=4 RealMemory=900 State=IDLE+DRAIN Partitions=main Reason=d\351f [root@2026-11-23T06:33:18]\n' ;;
*"show partition") printf 'PartitionName=main Default=YES Nodes=node1 State=UP\n' ;;
*) printf 'd\351fendu: %s\n' "$*" >&2; exit 1 ;;
esac
"""  # noqa: E501


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandClient:
    """Slurm's commands, as far as they are asked for here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scontrol").write_text(SCONTROL)
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "slurm.conf").touch()
    return CommandClient(tmp_path / "slurm.conf")


@pytest.fixture
def browser(settings: Settings, slurm: CommandClient) -> Iterator[TestClient]:
    """A caller of an application on that Slurm."""
    app = create_app(settings, slurm)
    with TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False) as client:
        yield client


def test_a_nodes_reason_stops_no_submission(app: Application, api: TestClient, spec: Json) -> None:
    clusters.refresh(app)
    (node,) = api.get("/api/v1/clusters/default/nodes").raise_for_status().json()["items"]
    assert (node["name"], node["reason"]) == ("node1", r"d\xe9f")
    app.answers.kept = None  # so that it is read from the database, as by another process, or a second later
    assert api.post("/api/v1/jobs", json=spec).status_code == 201
    too_many = spec | {"resources": {"nodes": 2}}
    assert api.post("/api/v1/jobs", json=too_many).status_code == 422


@pytest.mark.parametrize(
    "act", [lambda slurm: slurm.hold(1), lambda slurm: slurm.release(1), lambda slurm: slurm.requeue(1)]
)
def test_the_words_of_a_refusal_can_be_stored(slurm: CommandClient, act: Callable[[CommandClient], None]) -> None:
    with pytest.raises(SlurmRefusedError) as caught:
        act(slurm)
    assert r"d\xe9fendu" in str(caught.value)
    assert str(caught.value).encode()
