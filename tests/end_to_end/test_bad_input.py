"""Bad input answers with what is wrong, where, and what to do; nothing is stored, submitted or lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.lockstep import EXAMPLES, Lockstep, client

GOOD = {"name": "ok", "training": {"model": "digits-cnn", "data": "digits"}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["training.model=lenet"], "training.model: is 'lenet', but has to be one of"),
        (["resources.nodes=0"], "resources.nodes"),
        (["placement.ranks_per_node=4096"], "placement.ranks_per_node"),
        (["placement.cpus_per_rank=64"], "placement"),
        (["resources.nodes=500"], "resources.nodes"),
        (["resources.partition=nowhere"], "resources.partition"),
        (['name="two\\nlines"'], "name"),
        (["resources.node=2"], "resources.node: is not a key that exists here"),
    ],
)
def test_the_command_line_exits_2_and_stores_nothing(lockstep: Lockstep, settings: list[str], words: str) -> None:
    before = lockstep.json("ls")
    done = lockstep.run("submit", EXAMPLES / "digits.toml", *(word for s in settings for word in ("--set", s)))
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert lockstep.json("ls") == before


@pytest.mark.parametrize("content", [b"x = = 1\n", b'name = "\xff"\n'])
def test_a_file_that_is_no_spec_is_refused_before_the_service_hears_of_it(
    lockstep: Lockstep, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    for command in ("submit", "script"):
        done = lockstep.run(command, file)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (GOOD | {"training": {"model": "lenet", "data": "digits"}}, "training.model"),
        (GOOD | {"resources": {"nodes": 0}}, "resources.nodes"),
        (GOOD | {"placement": {"ranks_per_node": 1000}}, "placement.ranks_per_node"),
        (GOOD | {"name": "two\nlines"}, "name"),
        (GOOD | {"nmae": "x"}, "nmae"),
        ("{not json", None),
        (b'{"name": "\xff"}', None),
    ],
)
def test_http_answers_422_as_rfc_9457(lockstep: Lockstep, body: object, where: str | None) -> None:
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    with client(lockstep) as api:
        before = api.get("/jobs").json()
        answer = api.post("/jobs", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("application/problem+json")
        problem = answer.json()
        assert {"type", "title", "status", "detail"} <= set(problem)
        if where is not None:
            assert where in [found["where"] for found in problem["errors"]]
            assert all(found["message"] for found in problem["errors"])
        assert api.get("/jobs").json() == before


def test_without_a_service_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    done = Lockstep(tmp_path, None).run("ls")
    assert done.returncode == 3
    assert "lockstep serve" in done.stderr
