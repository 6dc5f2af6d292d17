"""What stands around the API: health, the dashboard's files, headers, host names, the OpenAPI document, clusters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service import openapi
from lockstep_service.app import _hosts, routes
from lockstep_service.boundary import Application
from lockstep_service.clusters.service import refresh
from lockstep_service.dashboard import mount_dashboard
from lockstep_service.settings import Settings, SettingsError


class TestHealth:
    def test_anyone_may_ask(self, browser: TestClient) -> None:
        assert browser.get("/healthz").json() == {"status": "ok"}
        assert browser.get("/readyz").json() == {"database": True, "dispatch": True}

    def test_a_dispatch_that_died_is_not_ready(self, browser: TestClient, app: Application) -> None:
        app.dispatching = lambda: False
        answer = browser.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"database": True, "dispatch": False})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # none of this is asked of it
class TestHostsAndHeaders:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "[::1]:8080"])
    def test_own_names_are_taken(self, browser: TestClient, host: str) -> None:
        assert browser.get("/healthz", headers={"Host": host}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "0.0.0.0", "localhost.evil:8080"])
    def test_a_name_that_a_strangers_dns_points_here_is_not(self, browser: TestClient, host: str) -> None:
        answer = browser.get("/healthz", headers={"Host": host})
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
        assert f"is not called '{host.removesuffix(':8080')}'" in answer.json()["detail"]
        assert "LOCKSTEP_ALLOWED_HOSTS" in answer.json()["detail"]

    @pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/jobs", "/api/nothing"])
    def test_every_answer_carries_the_strict_headers(self, browser: TestClient, path: str) -> None:
        headers = browser.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"

    def test_an_unknown_address_of_the_api_is_a_problem_and_not_a_page(self, browser: TestClient) -> None:
        answer = browser.get("/api/v1/nothing")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")

    def test_a_method_that_is_not_there(self, api: TestClient) -> None:
        answer = api.put("/api/v1/jobs")
        assert (answer.status_code, answer.headers["content-type"]) == (405, "application/problem+json")


class TestDashboard:
    @pytest.fixture
    def pages(self, tmp_path: Path) -> Path:
        folder = tmp_path / "dist"
        (folder / "assets").mkdir(parents=True)
        (folder / "index.html").write_text("<h1>Lockstep</h1>")
        (folder / "assets" / "app.1234.js").write_text("1")
        (tmp_path / "secret").write_text("secret")
        return folder

    @pytest.fixture
    def site(self, pages: Path) -> TestClient:
        api = routes()
        mount_dashboard(api, pages)
        return TestClient(api)

    @pytest.mark.parametrize("path", ["/", "/jobs/019aaf3e", "/deep/er"])
    def test_every_page_is_the_one_page(self, site: TestClient, path: str) -> None:
        answer = site.get(path)
        assert (answer.text, answer.headers["cache-control"]) == ("<h1>Lockstep</h1>", "no-cache")

    def test_assets_are_kept_and_missing_ones_are_missing(self, site: TestClient) -> None:
        assert "immutable" in site.get("/assets/app.1234.js").headers["cache-control"]
        assert site.get("/assets/old.js").status_code == 404

    @pytest.mark.parametrize(
        "path", ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "//etc/passwd", "/assets/../../secret"]
    )
    def test_nothing_outside_is_served(self, site: TestClient, path: str) -> None:
        assert "secret" not in site.get(path).text
        assert "root:" not in site.get(path).text

    def test_not_built_says_how_to_build(self, tmp_path: Path) -> None:
        api = routes()
        mount_dashboard(api, tmp_path / "nothing")
        assert "npm" in TestClient(api).get("/").text


class TestOpenApi:
    def test_the_committed_document_is_current(self) -> None:
        committed = Path(__file__).parents[2] / "web" / "openapi.json"
        assert json.loads(committed.read_text()) == openapi.document(), (
            "run: python -m lockstep_service.openapi > web/openapi.json"
        )

    def test_a_service_serves_it_to_everybody(self, browser: TestClient) -> None:
        answer = browser.get("/api/v1/openapi.json")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == openapi.document()

    def test_it_is_read_and_not_written(self, browser: TestClient) -> None:
        assert browser.post("/api/v1/openapi.json").status_code == 405

    def test_every_operation_has_a_readable_id_and_its_problems(self) -> None:
        document = openapi.document()
        operations = [one for path in document["paths"].values() for one in path.values()]
        names = [one["operationId"] for one in operations]
        assert len(names) == len(set(names))
        assert {"submit_job", "list_jobs", "get_job_metrics", "stream_job_events"} <= set(names)
        for one in operations:
            for status, answer in one["responses"].items():
                if int(status) >= 400 and status != "503":
                    assert list(answer["content"]) == ["application/problem+json"]

    def test_every_reference_leads_somewhere(self) -> None:
        document = openapi.document()
        text = json.dumps(document)
        for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
            assert name in document["components"]["schemas"]

    def test_routes_need_no_service(self) -> None:
        assert routes().title == "Lockstep"


class TestListClusters:
    def test_anonymous(self, browser: TestClient) -> None:
        assert browser.get("/api/v1/clusters").status_code == 401

    def test_before_any_answer(self, api: TestClient) -> None:
        (found,) = api.get("/api/v1/clusters").json()["items"]
        assert (found["name"], found["reachable"], found["observed_at"]) == ("default", False, None)

    def test_after_one(self, api: TestClient, app: Application) -> None:
        refresh(app)
        (found,) = api.get("/api/v1/clusters").json()["items"]
        assert (found["reachable"], found["nodes"], found["partitions"]) == (True, 1, ["local"])


class TestListNodes:
    URL = "/api/v1/clusters/default/nodes"

    def test_anonymous(self, browser: TestClient) -> None:
        assert browser.get(self.URL).status_code == 401

    def test_none(self, api: TestClient) -> None:
        assert api.get("/api/v1/clusters/elsewhere/nodes").status_code == 404

    def test_nodes(self, api: TestClient, app: Application) -> None:
        refresh(app)
        found = api.get(self.URL).json()
        assert found["items"][0]["cpus"] >= 1
        assert found["stale_since"] is None


class TestSettings:
    def test_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("LOCKSTEP_HOME", str(tmp_path))
        monkeypatch.setenv("LOCKSTEP_RECONCILE_SECONDS", "3")
        found = Settings()
        assert (found.home, found.reconcile_seconds, found.runs) == (tmp_path, 3, None)
        assert found.url == f"sqlite:///{tmp_path}/lockstep.db"

    def test_a_plain_postgresql_address_is_enough(self, tmp_path: Path) -> None:
        found = Settings(home=tmp_path, database_url="postgresql://u@h/d")
        assert found.url == "postgresql+psycopg://u@h/d"

    def test_host_names_have_commas_between(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCKSTEP_ALLOWED_HOSTS", "lockstep.site.example, *.lan,[fe80::1],fe80::2")
        assert Settings().allowed_hosts == ("lockstep.site.example", "*.lan", "[fe80::1]", "fe80::2")
        assert {"[fe80::1]", "[fe80::2]"} <= set(_hosts(Settings()))

    @pytest.mark.parametrize("name", ["[fe80::1", "face:8080", ":", "login1:8080", "a b"])
    def test_what_is_no_host_name_is_refused(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv("LOCKSTEP_ALLOWED_HOSTS", name)
        with pytest.raises(SettingsError, match="no host name"):
            Settings.read()

    def test_the_service_is_called_by_the_address_that_it_listens_on(self) -> None:
        assert {"fd00::5", "[fd00::5]"} <= set(_hosts(Settings(host="fd00::5")))
        assert not {"::", "[::]"} & set(_hosts(Settings(host="::")))

    def test_what_cannot_be_used_is_named_with_its_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOCKSTEP_ALLOWED_HOSTS", "https://lockstep.site.example")
        monkeypatch.setenv("LOCKSTEP_SUBMIT_RATE", "many")
        with pytest.raises(SettingsError) as caught:
            Settings.read()
        assert dict(caught.value.problems) == {
            "LOCKSTEP_ALLOWED_HOSTS": (
                "has 'https://lockstep.site.example', which is no host name; give names with commas between"
            ),
            "LOCKSTEP_SUBMIT_RATE": "is 'many', but has to be a whole number",
        }
