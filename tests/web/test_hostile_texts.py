"""A run whose every text is an attack, and a page of another origin, in a real Chromium that is signed in."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from lockstep_slurm.job.rundir import Exit, as_json, claim_file, exit_file
from support.lockstep import Lockstep
from support.placements import RunOnNodes, machine, verdict_values

EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=1</script><svg onload=pwned=1>`javascript:pwned=1`'
LINK = "\x1b]8;;javascript:window.pwned=1\x07click\x1b]8;;\x07 \x1b[31m"
TABS = ("overview", "placement", "timeline", "attempts", "script", "log", "spec")


@pytest.fixture(scope="module")
def context(service: Lockstep, browser: Browser) -> BrowserContext:
    """A browser that is signed in."""
    found = browser.new_context(viewport={"width": 1280, "height": 900})
    page = found.new_page()
    page.goto(service.link())
    expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
    page.close()
    return found


def hostile_run(runs: Path) -> RunOnNodes:
    """A run directory as its job may write it: every text that a page shows is markup."""
    run = RunOnNodes(runs, machine(sockets=1, numa_per_socket=1, l3_per_numa=1, cores_per_l3=8), nodes=1)
    spec = json.loads((run.run / "spec.json").read_text())
    spec |= {
        "training": {"script": f"/{EVIL}", "arguments": [EVIL, "--x=" + EVIL]},
        "environment": {"variables": {"A": EVIL}},
    }
    (run.run / "spec.json").write_text(json.dumps(spec))
    (run.run / "job.sbatch").write_text(f"#!/bin/bash\n# {EVIL}\n")
    (run.run / "logs" / "job-1.log").write_text(f"{EVIL}\n{LINK}\n")
    claim = claim_file(run.run, 1)
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"node": EVIL, "nodes": [EVIL], "cluster": EVIL}))
    run.tell_plan(0, grant=[EVIL])
    for rank in (0, 1):
        found = run.tell_verdict(rank, moved={"horovod": (0, 1)})
        values = verdict_values(found)
        document = json.loads(values["document"].replace("python3", json.dumps(EVIL)[1:-1]))
        document["deviations"] = [EVIL]
        for thread in document["threads"]:
            thread["deviation"] = EVIL
        run.tell(rank, "verdict", values | {"when": "steps", "document": json.dumps(document | {"when": "steps"})})
        run.tell(rank, "data", {"data": EVIL, "path": LINK, "staged": EVIL, "train": 5, "classes": EVIL})
        run.tell(
            rank, "staging", {"node": EVIL, "folder": EVIL, "copied_bytes": 1, "total_bytes": rank + 1, "files": EVIL}
        )
        run.tell(rank, "resume", {"job": EVIL, "saved_by": EVIL}, step=1)
        run.tell(rank, "checkpoint", {"path": EVIL, "bytes": EVIL, "seconds": -1}, step=2)
        run.tell(rank, "checkpoint", {"error": EVIL})
        run.tell(rank, "start", {"steps": 2, EVIL: 1.0, "hostname": EVIL})
        run.tell(rank, "step", {EVIL: 1.0, "loss": EVIL, "samples_per_s": 3.0})
    ended = Exit(1, 1, 1, None, 0, EVIL, EVIL, time.time())
    claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": 2**22 + 1}))
    exit_file(run.run, 1).write_text(as_json(ended))
    return run


def test_no_text_of_a_run_is_ever_markup(service: Lockstep, context: BrowserContext, tmp_path: Path) -> None:
    run = hostile_run(tmp_path / "runs")
    imported = service.run("import", run.run)
    assert imported.returncode == 0, imported.stderr
    complaints: list[str] = []
    page = context.new_page()

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    url = json.loads((service.home / "service.json").read_text())["url"]
    page.goto(url)
    expect(page.get_by_test_id("job-row").first).to_be_visible()
    for tab in TABS:
        page.goto(f"{url}/jobs/{run.run.name}?tab={tab}")
        expect(page.get_by_test_id("job")).to_have_attribute("data-complete", "true", timeout=30_000)
        if tab == "attempts":
            expect(page.get_by_test_id("attempt-row")).to_contain_text("onerror=")
        if tab in {"script", "log", "spec"}:
            expect(page.get_by_test_id(tab)).to_contain_text("onerror=")
        if tab == "overview":
            expect(page.get_by_test_id("banner-ended-badly")).to_contain_text("<script>window.pwned=1</script>")
        if tab == "placement":
            expect(page.get_by_test_id("sentence").first).to_contain_text("onerror=")
        _nothing_of_it_lives(page, tab)
    # The script as the API gives it, opened as a page of its own.
    answer = page.goto(f"{url}/api/v1/jobs/{run.run.name}/script")
    assert answer is not None
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    _nothing_of_it_lives(page, "the script itself")
    page.close()
    assert complaints == [], "Chromium refused something that should never have been tried"


def _nothing_of_it_lives(page: Page, where: str) -> None:
    assert page.evaluate("window.pwned") is None, where
    assert page.locator("img[src='x'], svg[onload], a[href^='javascript']").count() == 0, where
    assert page.evaluate("[...document.scripts].every(script => script.src !== '')"), where


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a page of another port of this host: for cookies the same site, and yet another origin."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base's name
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


ATTEMPTS = """async ([url, job]) => {
    const told = {};
    const attempt = async (name, path, options) => {
        try {
            const answer = await fetch(url + path, {credentials: "include", ...options});
            told[name] = answer.type === "opaque" ? "opaque" : "read " + answer.status;
        } catch { told[name] = "refused"; }
    };
    await attempt("read", "/api/v1/jobs", {});
    await attempt("read blindly", "/api/v1/jobs", {mode: "no-cors"});
    await attempt("cancel", `/api/v1/jobs/${job}/cancel`, {method: "POST", mode: "no-cors"});
    await attempt("cancel, asking", `/api/v1/jobs/${job}/cancel`, {method: "POST", headers: {"X-A": "1"}});
    await attempt("submit", "/api/v1/jobs", {method: "POST", mode: "no-cors",
        headers: {"Content-Type": "text/plain"}, body: '{"training":{"model":"digits-mlp","data":"digits"}}'});
    await attempt("sign out", "/api/v1/session", {method: "DELETE"});
    told.frame = await new Promise((done) => {
        const frame = document.createElement("iframe");
        frame.onload = () => {
            let inside = null;
            try { inside = frame.contentDocument; } catch {}
            done(inside === null);
        };
        frame.src = url; document.body.append(frame);
    });
    told.stream = await new Promise((done) => {
        const stream = new EventSource(url + "/api/v1/events", {withCredentials: true});
        stream.onerror = () => { stream.close(); done("refused"); };
        stream.onopen = () => { stream.close(); done("open"); };
    });
    const form = document.createElement("form");
    form.method = "post"; form.action = `${url}/api/v1/jobs/${job}/cancel`; form.target = "_blank";
    document.body.append(form); form.submit();
    return told;
}"""


def test_a_page_of_another_origin_reads_nothing_and_changes_nothing(
    service: Lockstep, context: BrowserContext, elsewhere: str
) -> None:
    url = json.loads((service.home / "service.json").read_text())["url"]
    job = service.submit("resources.nodes=1", "training.model=digits-mlp", "training.epochs=100000")
    jobs = [one["id"] for one in service.json("ls")]
    page = context.new_page()
    page.goto(elsewhere)
    told = page.evaluate(ATTEMPTS, [url, job])
    opened = context.wait_for_event("page") if len(context.pages) < 2 else context.pages[-1]
    opened.wait_for_load_state()
    assert "The request comes from a page of another origin" in opened.content()
    assert {name for name, what in told.items() if str(what).startswith(("read 2", "open"))} == set(), told
    assert told["read"] == told["stream"] == told["sign out"] == "refused"
    assert told["frame"] is True
    assert service.job(job)["phase"] in {"accepted", "waiting", "running"}
    assert [one["id"] for one in service.json("ls")] == jobs
    # It is this browser that is signed in, and by its own page it may.
    page.goto(f"{url}/jobs/{job}")
    expect(page.get_by_test_id("job")).to_be_visible()
    page.get_by_test_id("cancel").click()
    page.get_by_test_id("cancel-confirm").click()
    expect(page.get_by_test_id("phase-badge").first).to_have_text("ended badly", timeout=60_000)
