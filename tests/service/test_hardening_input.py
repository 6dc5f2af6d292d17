"""What a stranger or a broken client may send: refused in words, never a 5xx, and nothing of it is stored or run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from lockstep_service.boundary import Application
from lockstep_service.dispatch.ingest import read_spools
from lockstep_service.jobs.logs import newest_size
from lockstep_slurm.job import beneath, rundir
from lockstep_slurm.job.rundir import RunDirectoryError, read_claims, read_exit

from .conftest import HandMadeRun, Json

URL = "/api/v1/jobs"


IMPOSSIBLE = (
    ("GET", "/jobs/%00"), ("GET", "/jobs/a%00b/metrics"), ("GET", "/jobs?cursor=%00"), ("POST", "/jobs/%00/cancel"),
    ("GET", "/jobs/%00/events"), ("GET", "/jobs/%00/script"), ("GET", "/jobs/%00/logs"), ("GET", "/jobs/%ff"),
    ("GET", "/jobs/x/placement?node=%00"), ("GET", "/clusters/%00/nodes"), ("GET", "/jobs/" + "x" * 3000),
    ("GET", "/jobs?limit=" + "9" * 5000), ("GET", "/jobs/x/logs?offset=" + "9" * 30),
)  # fmt: skip


def test_a_parameter_that_no_database_takes_is_refused(api: TestClient) -> None:
    for method, path in IMPOSSIBLE:
        answer = api.request(method, f"/api/v1{path}")
        assert answer.status_code in {404, 422}, (path[:60], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_rank_with_such_a_job_is_refused_too(browser: TestClient) -> None:
    answer = browser.post("/api/v1/jobs/%00/records", content=b"", headers={"Authorization": "Bearer x"})
    assert answer.status_code in {403, 422}


NO_TEXTS = (
    (b"", "The body is missing; it has to be JSON."),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"name":' + b"1" * 5000 + b"}", "cannot be read"),
    (b'{"training":{"script":"/\\ud800"}}', "half of a character"),
    (b'{"training":{"script":"/a"},"environment":{"variables":{"A":"\\udfff"}}}', "half of a character"),
    (b'{"training":{"model":"digits-mlp","data":"digits","epochs":1e999}}', "training.epochs"),
)


def test_a_body_that_is_no_text_is_refused_and_nothing_stored(api: TestClient) -> None:
    for body, says in NO_TEXTS:
        answer = api.post(URL, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True), answer.text[:300]
    unsaid = api.post(URL, content=b'{"training":{"model":"digits-mlp","data":"digits"}}')  # as by a plain curl --data
    assert (unsaid.status_code, "Content-Type: application/json" in unsaid.json()["detail"]) == (422, True)
    assert api.get(URL).json()["items"] == []


def test_the_dashboard_has_no_file_of_an_impossible_name(browser: TestClient) -> None:
    for path in ("/%00", "/" + "a" * 5000, "/assets/%00", "/a%00/../b"):
        assert browser.get(path).status_code in {200, 404}


def test_a_wrong_method_names_all_that_there_are(browser: TestClient) -> None:
    for method, path, allowed in (
        ("OPTIONS", URL, "GET, POST"),
        ("DELETE", f"{URL}/x", "GET"),
        ("GET", f"{URL}/x/cancel", "POST"),
        ("POST", "/index.html", "GET, HEAD"),
    ):
        answer = browser.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed), path
        assert answer.json()["detail"] == f"{method} {path} does not exist; this path has: {allowed}"
        assert "access-control-allow-origin" not in answer.headers


EVIL = (
    "'; DROP TABLE jobs; --", '" OR ""="', "%s", "%(job_id)s", ":job_id", "loss\x00", "\ud800", "a" * 3000, "",
    "$.loss[0]", "{}", "loss') UNION SELECT token_hash FROM jobs --", "<script>alert(1)</script>",
)  # fmt: skip


def test_a_metrics_name_is_data_and_never_sql(api: TestClient, browser: TestClient, job: Json, job_token: str) -> None:
    as_rank = {"Authorization": f"Bearer {job_token}"}
    for seq, name in enumerate(EVIL, 1):
        storable = name != "\ud800" and 1 <= len(name) <= 256
        record = {"v": 1, "attempt": 1, "rank": 0, "seq": seq, "time": 1, "kind": "step", "step": 1}
        body = json.dumps(record | {"values": {name: 1.5}})
        answer = browser.post(f"{URL}/{job['id']}/records", content=body, headers=as_rank)
        assert answer.status_code == (200 if storable else 422), (name[:40], answer.text)
        found = api.get(f"{URL}/{job['id']}/metrics")
        assert found.status_code == 200, (name[:40], found.text)
        assert (repr(name) in str(found.json())) is storable, name[:40]
    assert [one["id"] for one in api.get(URL).json()["items"]] == [job["id"]]
    assert job_token not in found.text


WHOLE: Json = {
    "name": "trial",
    "training": {"script": "/s.py", "arguments": ["a"], "patterns": {"loss": "loss=([0-9.]+)"}},
    "environment": {
        "venv": "/v", "modules": ["gcc"], "module_use": ["/m"], "variables": {"A": "b"}, "setup_file": "/s.sh",
    },
    "resources": {
        "nodes": 1, "partition": "local", "account": "a", "qos": "q", "reservation": "r", "constraint": "c",
        "mem": "1G", "time": "30", "mail_user": "a@b.c", "mail_type": ["END"], "begin": "2026-12-01T08:00",
    },
    "communication": {"mpi": "pmix", "interface": "eth0"},
}  # fmt: skip
"""A spec with every text that there is."""
INJECTIONS = (
    "{}\n#SBATCH --uid=0", "{}\r#SBATCH --uid=0", "{}\x0b#SBATCH --uid=0", "{}\u2028#SBATCH --uid=0",
    "{}\x85#SBATCH -w x", "{} --uid=0",
    "{},--uid=0", "--uid=0 {}", "{}\\\n--uid=0", "{}$(touch pwned)", "{}`touch pwned`", "{}';touch pwned;'",
    '{}";touch pwned;"', "{}\nLOCKSTEP_SPEC\ntouch pwned\n", "{}%j%A", "{}\0",
)  # fmt: skip


def test_no_text_of_a_spec_gets_into_the_scripts_header_or_out_of_its_place(api: TestClient) -> None:
    """What a rank makes of them, with bash: tests/job/test_script.py. What Slurm makes of the header: there, too."""
    said = _header(api, api.post(URL, json=WHOLE).raise_for_status().json()["id"])
    assert len(said) > 15
    accepted = 0
    for place in list(_texts(WHOLE)):
        for injection in INJECTIONS:
            spec = json.loads(json.dumps(WHOLE))
            _put(spec, place, injection.replace("{}", _at(WHOLE, place)))
            answer = api.post(URL, json=spec)
            assert answer.status_code in {201, 422}, (place, injection, answer.text)
            if answer.status_code == 201:
                accepted += 1
                assert _header(api, answer.json()["id"]) == said, (place, injection)
    assert accepted > 20  # arguments, variables, paths: any text that has no control character


def _header(api: TestClient, job: str) -> list[str]:
    """The names of the options in the script's header, in order; everything else in it is a comment or nothing."""
    script = api.get(f"{URL}/{job}/script").raise_for_status().text
    lines = script.split("\n")
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    assert not any(line.lstrip().startswith("#SBATCH") for line in lines[end:]), "sbatch stops at the first command"
    assert not any(mark in "".join(lines[:end]) for mark in "\r\x0b\x85\u2028\0")
    directives = [line.split() for line in lines[:end] if line.startswith("#SBATCH")]
    assert all(len(words) == 2 for words in directives), directives
    return [words[1].partition("=")[0] for words in directives]


def _texts(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from _texts(one, (*place, key))
    if isinstance(value, str):
        yield place


def _at(value: Any, place: tuple[str | int, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _put(value: Any, place: tuple[str | int, ...], text: str) -> None:
    _at(value, place[:-1])[place[-1]] = text


class TestRunDirectories:
    """A run directory is written by its job: what is in it leads nowhere."""

    @pytest.fixture
    def secret(self, tmp_path: Path) -> Path:
        found = tmp_path / "secret"
        found.write_text("the user's own secret")
        return found

    def test_a_folder_that_is_a_link_has_nothing_in_it(
        self, api: TestClient, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun], tmp_path: Path
    ) -> None:
        hand = run_of(job)
        elsewhere = tmp_path / "elsewhere"
        (elsewhere / "1").mkdir(parents=True)
        (elsewhere / "1" / "node1.jsonl").write_bytes(hand.line(step=1, loss=1.0))
        (elsewhere / "job-1.log").write_text("not of this job")
        for name in ("spool", "logs"):
            (hand.run / name).rmdir()
            (hand.run / name).symlink_to(elsewhere)
        assert read_spools(app, hand.id, hand.run) == 0
        found = api.get(f"{URL}/{job['id']}/logs").raise_for_status().json()
        assert (found["text"], found["files"], newest_size(hand.run)) == ("", [], 0)

    def test_an_attempts_folder_that_is_a_link_has_nothing_in_it(
        self, app: Application, job: Json, run_of: Callable[[Json], HandMadeRun], tmp_path: Path
    ) -> None:
        hand = run_of(job)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "node1.jsonl").write_bytes(hand.line(step=1, loss=1.0))
        (hand.run / "spool" / "1").symlink_to(tmp_path / "elsewhere")
        hand.spool(hand.line(step=2, loss=2.0, attempt=2), attempt=2)
        assert read_spools(app, hand.id, hand.run) > 0
        assert app.database.answers()

    def test_the_run_directory_itself_replaced_by_a_link_is_not_followed(
        self, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun], tmp_path: Path
    ) -> None:
        hand = run_of(job)
        (hand.run / "logs" / "job-1.log").write_text("own")
        hand.run.rename(tmp_path / "moved")
        hand.run.symlink_to(tmp_path / "moved")
        assert api.get(f"{URL}/{job['id']}/logs").raise_for_status().json()["text"] == ""

    @pytest.mark.parametrize("kind", ["link", "pipe", "folder", "socket"])
    def test_claims_and_exit_records_are_plain_files_or_none(
        self, made_by_hand: Callable[[], HandMadeRun], secret: Path, kind: str
    ) -> None:
        hand = made_by_hand()
        hand.claim()
        _replace(hand.run / "exit" / "1.json", kind, secret)
        with pytest.raises(beneath.NotPlainError, match="not followed"):
            read_exit(hand.run, 1)
        _replace(hand.run / "claims" / "000002.json", kind, secret)
        with pytest.raises(beneath.NotPlainError, match="not followed"):
            read_claims(hand.run)

    def test_a_claim_without_end_is_not_read_to_its_end(self, made_by_hand: Callable[[], HandMadeRun]) -> None:
        hand = made_by_hand()
        hand.claim()
        with (hand.run / "claims" / "000002.json").open("wb") as file:
            file.truncate(1 << 40)  # a terabyte of nothing
        with pytest.raises(OSError, match="longer than"):
            read_claims(hand.run)

    def test_a_log_that_becomes_a_link_while_it_is_looked_at_is_never_read(
        self, api: TestClient, job: Json, run_of: Callable[[Json], HandMadeRun], secret: Path
    ) -> None:
        """Between the look at a file and its opening lies time enough for a job to change it."""
        hand = run_of(job)
        log = hand.run / "logs" / "job-1.log"
        own, link = hand.run / "own", hand.run / "link"
        seen = set()
        for _ in range(150):
            own.write_text("own")
            own.replace(log)
            link.symlink_to(secret)
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(beneath, "open_file", _after(lambda: link.replace(log), beneath.open_file))
                answer = api.get(f"{URL}/{job['id']}/logs")
            seen.add((answer.status_code, answer.json().get("text")))
        assert seen == {(503, None)}

    def test_an_import_reads_no_file_through_a_link(
        self, api: TestClient, made_by_hand: Callable[[], HandMadeRun], secret: Path
    ) -> None:
        for name in ("spec.json", "origin.json", "job.sbatch"):
            hand = made_by_hand()
            (hand.run / name).unlink()
            (hand.run / name).symlink_to(secret)
            answer = api.post(f"{URL}/import", json={"run_dir": str(hand.run)})
            assert (answer.status_code, "not followed" in answer.json()["detail"]) == (422, True), answer.text
            assert "own secret" not in answer.text

    def test_a_name_that_is_a_path_is_no_name(self, tmp_path: Path) -> None:
        for name in ("..", ".", "", "a/b", "/etc/passwd"):
            with pytest.raises(ValueError, match="is no name"):
                beneath.open_file(tmp_path, name)

    def test_too_many_claims_are_not_read(
        self, made_by_hand: Callable[[], HandMadeRun], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hand = made_by_hand()
        for number in range(1, 5):
            hand.claim(number)
        assert len(read_claims(hand.run)) == 4
        monkeypatch.setattr(rundir, "_MOST_CLAIMS", 3)
        with pytest.raises(RunDirectoryError, match="4 claims"):
            read_claims(hand.run)


def _replace(file: Path, kind: str, secret: Path) -> None:
    if kind == "link":
        file.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        os.mknod(file, 0o140600)


def _after(first: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    def both(*arguments: Any, **options: Any) -> Any:
        first()
        return then(*arguments, **options)

    return both
