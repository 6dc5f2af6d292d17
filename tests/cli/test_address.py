"""What answers at the service's address: the service, something else, or a service that cannot prove who it is."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from lockstep_service.jobs.schemas import EXAMPLE_ID, EXAMPLE_SUMMARY
from lockstep_slurm.cli.api import LOOK_BACK, Api
from lockstep_slurm.job.identity import new_job_id
from support import answers
from support.answers import Answer

NO_JOBS = answers.of({"items": [], "next_cursor": None})
MOVED = Answer(301, "text/html", "", (("Location", "https://login.example.org/"),))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answers.HTML, "(HTTP 200, text/html)"),
        (MOVED, "(HTTP 301 to https://login.example.org/)"),
        (Answer(404, "text/html", "<h1>Not Found</h1>"), "(HTTP 404, text/html)"),
        (Answer(200, "application/json", "[]"), "(HTTP 200 with JSON of another kind)"),
        (Answer(200, "application/json", "{"), "(HTTP 200 with JSON of another kind)"),
    ],
)
def test_an_answer_of_something_else_names_the_address_and_what_came(tmp_path: Path, answer: Answer, said: str) -> None:
    with answers.serving(tmp_path, lambda *_: answer) as (_, ours):
        done = ours.run("ls")
        url = ours.environment["LOCKSTEP_URL"]
    # Before: a traceback of the JSON decoder, or (the 404) wrong input.
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith(f"lockstep: what answers at {url} is no Lockstep service {said}; LOCKSTEP_URL is the")


def test_an_address_that_cannot_be_one_is_said_without_a_traceback(tmp_path: Path) -> None:
    with answers.serving(tmp_path, lambda *_: NO_JOBS) as (_, ours):
        ours.environment["LOCKSTEP_URL"] = "http://login1:port"
        done = ours.run("ls")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("lockstep: the service's address 'http://login1:port' is none (")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a site's own authority, ``ca.pem``, and what it has signed for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("authority")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (folder / "names").write_text(
        "subjectAltName=IP:127.0.0.1\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    openssl(
        folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
        "-subj", "/CN=A site of the test's own", "-addext", "keyUsage=critical,keyCertSign",
    )  # fmt: skip
    openssl(folder, "req", *key, "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=127.0.0.1")
    openssl(
        folder, "x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "2", "-extfile", "names", "-out", "own.pem",
    )  # fmt: skip
    return folder


def test_a_service_under_the_sites_own_authority_is_used_with_its_certificate(tmp_path: Path, authority: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "own.pem", authority / "own.key")
    with answers.serving(tmp_path, lambda *_: NO_JOBS, tls) as (_, ours):
        url = ours.environment["LOCKSTEP_URL"]
        strange = ours.run("ls")
        ours.environment["SSL_CERT_FILE"] = str(authority / "ca.pem")
        known = ours.run("ls")
        followed = ours.run("watch", EXAMPLE_ID, timeout=60)
        ours.environment["LOCKSTEP_URL"] = url.replace("127.0.0.1", "localhost")
        misnamed = ours.run("ls")
    assert strange.returncode == 3
    assert strange.stderr.startswith(f"lockstep: the certificate of the service at {url} is not accepted: ")
    assert "set SSL_CERT_FILE to the file of that authority's certificate (it is not set now)" in strange.stderr
    # Before: as without the variable, which `trust_env=False` switched off.
    assert (known.returncode, known.stderr.startswith("no jobs yet")) == (0, True), known.stderr
    assert "is no Lockstep service (HTTP 200, application/json)" in followed.stderr
    assert misnamed.returncode == 3
    assert "localhost" in misnamed.stderr
    assert "LOCKSTEP_URL has to have a name that the certificate is for" in misnamed.stderr


def test_a_proxy_of_the_shells_still_does_not_see_the_token(tmp_path: Path) -> None:
    with answers.serving(tmp_path, lambda *_: NO_JOBS) as (server, ours):
        ours.environment["HTTP_PROXY"] = ours.environment["http_proxy"] = "http://127.0.0.1:9"
        assert ours.run("ls").returncode == 0
    assert [one.path for one in server.asked] == ["/jobs"]


def test_the_end_of_an_id_is_found_among_all_jobs_that_the_list_can_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [new_job_id() for _ in range(LOOK_BACK)]

    def answer(_: str, n: int) -> Answer:
        items = [EXAMPLE_SUMMARY | {"id": one} for one in ids[200 * n : 200 * (n + 1)]]
        return answers.of({"items": items, "next_cursor": "more"})

    with answers.serving(tmp_path, answer) as (server, ours):
        for name in ("LOCKSTEP_URL", "LOCKSTEP_HOME"):
            monkeypatch.setenv(name, ours.environment[name])
        with Api() as api:
            # Before: only the newest 200 were looked through, and `lockstep ls --limit 1000` shows five times as many.
            assert api.job_id(ids[-1][-12:]) == ids[-1]
    assert len(server.asked) == 5
