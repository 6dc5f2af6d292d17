"""Shipping: the spool reaches the service whole, whatever happens to the service meanwhile; no rank waits for it."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.writing import write_whole
from lockstep_worker.shipping import CHUNK, Shipper, read_lines, retry_after

TOKEN = "secret-of-this-job"


class Service(ThreadingHTTPServer):
    """The records route alone, as docs/records.md describes it: stores each line once, answers what is contiguous."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[tuple[int, int, int], dict[str, Any]] = {}
        self.requests = 0
        self.refuse_with: int | None = None
        self.retry_after: str | None = None
        self.asked_at: list[float] = []
        self.paths: set[str] = set()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        service = self.server
        service.requests += 1
        service.asked_at.append(time.monotonic())
        service.paths.add(self.path)
        lines = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
        status = service.refuse_with or (200 if self.headers["Authorization"] == f"Bearer {TOKEN}" else 401)
        answer: dict[str, Any] = {}
        if status == 200:
            for line in lines.splitlines():
                record = json.loads(line)
                service.stored.setdefault((record["attempt"], record["rank"], record["seq"]), record)
            acknowledged: dict[str, int] = {}
            for attempt, rank, seq in sorted(service.stored):
                if seq == acknowledged.get(f"{attempt}/{rank}", 0) + 1:
                    acknowledged[f"{attempt}/{rank}"] = seq
            answer = {"acknowledged": acknowledged}
        body = json.dumps(answer).encode()
        self.send_response(status)
        if service.retry_after is not None:
            self.send_header("Retry-After", service.retry_after)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


class Shipping:
    """A spool that grows, and its shipper."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.spool = run / "spool" / "1" / "node1.jsonl"
        self.spool.parent.mkdir(parents=True)
        self.spool.touch()
        self.written = 0
        self.shipper = Shipper(run, self.spool)

    def target(self, url: str, token: str = TOKEN) -> None:
        write_whole(self.run / "report.json", json.dumps({"url": url, "token": token}))

    def write(self, records: int, filler: int = 0) -> None:
        with self.spool.open("a") as file:
            for _ in range(records):
                self.written += 1
                seq, rank = divmod(self.written - 1, 2)
                record = {"v": 1, "attempt": 1, "rank": rank, "seq": seq + 1, "time": 1.0, "kind": "step", "step": seq}
                file.write(json.dumps({**record, "values": {"filler": "x" * filler}}) + "\n")

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        ends = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends, f"not in {seconds} s; the last error is {self.shipper.error}"
            time.sleep(0.02)


@pytest.fixture
def shipping(make_run: Callable[..., Path]) -> Iterator[Shipping]:
    shipping = Shipping(make_run(model="digits-mlp", data="digits"))
    yield shipping
    shipping.shipper.finish(0.1)


def test_what_grows_is_shipped_once_each(shipping: Shipping, service: Service) -> None:
    shipping.target(service.url)
    shipping.shipper.start()
    for _ in range(3):
        shipping.write(100)
        time.sleep(0.3)
    assert shipping.shipper.finish(10)
    assert len(service.stored) == 300
    assert service.paths == {f"/api/v1/jobs/{shipping.run.name}/records"}


def test_a_large_spool_travels_in_chunks(shipping: Shipping, service: Service) -> None:
    shipping.target(service.url)
    shipping.write(1000, filler=1000)
    shipping.shipper.start()
    assert shipping.shipper.finish(20)
    assert len(service.stored) == 1000
    assert service.requests > shipping.spool.stat().st_size // CHUNK


def test_a_service_that_comes_back_elsewhere_gets_everything(shipping: Shipping, service: Service) -> None:
    first = Service()
    shipping.target(first.url)
    shipping.shipper.start()
    shipping.write(50)
    shipping.wait(lambda: len(first.stored) == 50)
    first.stop()
    shipping.write(50)
    shipping.wait(lambda: shipping.shipper.error is not None)
    service.stored.update(first.stored)
    shipping.target(service.url)
    assert shipping.shipper.finish(20)
    assert len(service.stored) == 100


def test_a_service_restored_from_a_backup_gets_again_what_it_forgot(shipping: Shipping, service: Service) -> None:
    shipping.target(service.url)
    shipping.shipper.start()
    shipping.write(60)
    shipping.wait(lambda: shipping.shipper.offset == shipping.spool.stat().st_size)
    for key in [key for key in service.stored if key[2] > 10]:
        del service.stored[key]
    shipping.write(20)
    assert shipping.shipper.finish(20)
    assert len(service.stored) == 80


@pytest.mark.parametrize("status", [401, 404, 413, 422, 500, 503])
def test_a_refusal_is_retried_and_nothing_is_skipped(shipping: Shipping, service: Service, status: int) -> None:
    shipping.target(service.url)
    service.refuse_with = status
    shipping.write(10)
    shipping.shipper.start()
    shipping.wait(lambda: service.requests >= 2)
    assert shipping.shipper.offset == 0
    assert str(status) in (shipping.shipper.error or "")
    service.refuse_with = None
    assert shipping.shipper.finish(20)
    assert len(service.stored) == 10


def test_a_service_that_is_busy_is_left_alone_for_as_long_as_it_asks(shipping: Shipping, service: Service) -> None:
    shipping.target(service.url)
    service.refuse_with, service.retry_after = 429, "2"
    shipping.write(10)
    shipping.shipper.start()
    shipping.wait(lambda: service.requests >= 2)
    service.refuse_with = service.retry_after = None
    assert service.asked_at[1] - service.asked_at[0] >= 2
    shipping.wait(lambda: len(service.stored) == 10)


@pytest.mark.parametrize(
    ("header", "seconds"), [("3", 3), ("999999", 30), (None, 0), ("Wed, 21 Oct 2026", 0), ("-1", 0)]
)
def test_what_a_service_asks_for_has_an_end(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_a_spec_that_wants_files_ships_nothing(shipping: Shipping, service: Service) -> None:
    spec = json.loads((shipping.run / "spec.json").read_text()) | {"report": {"transport": "files"}}
    write_whole(shipping.run / "spec.json", json.dumps(spec))
    shipping.target(service.url)
    shipping.write(10)
    shipping.shipper.start()
    assert not shipping.shipper.finish(2.0)
    assert (service.requests, shipping.shipper.error) == (0, None)


def test_without_a_service_the_end_is_soon(shipping: Shipping) -> None:
    shipping.target("http://127.0.0.1:9")  # nobody listens there
    shipping.write(10)
    shipping.shipper.start()
    before = time.monotonic()
    assert not shipping.shipper.finish(1.0)
    assert time.monotonic() - before < 3


def test_without_report_json_nothing_is_shipped_and_nothing_is_said(shipping: Shipping) -> None:
    shipping.write(10)
    shipping.shipper.start()
    before = time.monotonic()
    assert not shipping.shipper.finish(5.0)
    assert time.monotonic() - before < 3
    assert shipping.shipper.error is None


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    spool = tmp_path / "s"
    spool.write_bytes(b'{"a":1}\n{"a":2}\n{"a"')
    assert read_lines(spool, 0) == b'{"a":1}\n{"a":2}\n'
    assert read_lines(spool, 8) == b'{"a":2}\n'
    assert read_lines(spool, 16) == b""
    assert read_lines(spool, 0, limit=12) == b'{"a":1}\n'
