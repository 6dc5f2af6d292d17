"""Signing in and out, and who is let in at all."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.app import create_app
from lockstep_service.auth.links import Links
from lockstep_service.auth.service import KeyFileError, load_keys
from lockstep_service.auth.sessions import Sessions
from lockstep_service.boundary import Application
from lockstep_service.settings import Settings

URL = "/api/v1/session"
OWN = {"Origin": "http://127.0.0.1:8080"}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One database is enough here: what is known of sessions is in the home and not in the database."""
    return f"sqlite:///{tmp_path / 'lockstep.db'}"


class TestOpenSession:
    def test_a_wrong_token_is_refused(self, browser: TestClient) -> None:
        answer = browser.post(URL, json={"token": "guess"})
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert "set-cookie" not in answer.headers

    def test_a_page_of_another_origin_is_refused(self, browser: TestClient, app: Application) -> None:
        answer = browser.post(URL, json={"token": app.keys.token}, headers={"Origin": "http://elsewhere.example"})
        assert answer.status_code == 403

    def test_the_cookie_is_for_this_site_alone_and_not_for_scripts(self, browser: TestClient, app: Application) -> None:
        answer = browser.post(URL, json={"token": app.keys.token}, headers=OWN)
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert app.keys.token.lower() not in cookie

    def test_the_session_lets_in(self, browser: TestClient, app: Application) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN)
        assert browser.get(URL).json() == {"user": app.keys.user}
        assert browser.get("/api/v1/jobs").status_code == 200


class TestGetSession:
    def test_anonymous(self, browser: TestClient) -> None:
        answer = browser.get(URL)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"

    def test_a_forged_cookie_is_nobody(self, browser: TestClient, app: Application) -> None:
        browser.cookies.set(app.keys.cookie, "eyJ1c2VyIjogInJvb3QifQ==.aaaa.bbbb")
        assert browser.get(URL).status_code == 401

    def test_a_bearer_token_needs_no_session(self, api: TestClient, app: Application) -> None:
        assert api.get(URL).json() == {"user": app.keys.user}


class TestCloseSession:
    def test_after_it_the_browser_is_nobody_again(self, browser: TestClient, app: Application) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN)
        assert browser.delete(URL, headers=OWN).status_code == 204
        assert browser.get(URL).status_code == 401


class TestLinks:
    LINKS = f"{URL}/links"

    def test_are_for_who_has_the_token_and_not_for_a_session(self, browser: TestClient, app: Application) -> None:
        assert browser.post(self.LINKS).status_code == 401
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        assert browser.post(self.LINKS, headers=OWN).status_code == 403

    @pytest.mark.parametrize("given", ["Basic x", "Bearer ", "bearer", "x"])
    def test_a_header_that_brings_no_token_makes_no_more_of_a_session(
        self, browser: TestClient, app: Application, given: str
    ) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        assert browser.post(self.LINKS, headers={**OWN, "Authorization": given}).status_code == 403

    def test_a_code_opens_one_session_and_no_second(self, browser: TestClient, api: TestClient) -> None:
        code = api.post(self.LINKS).raise_for_status().json()["code"]
        assert browser.post(URL, json={"code": code}, headers=OWN).status_code == 204
        assert browser.get("/api/v1/jobs").status_code == 200
        browser.cookies.clear()
        again = browser.post(URL, json={"code": code}, headers=OWN)
        assert (again.status_code, "set-cookie" in again.headers) == (401, False)
        assert "lockstep open" in again.json()["detail"]

    def test_of_many_who_have_the_same_code_one_gets_in(self, browser: TestClient, api: TestClient) -> None:
        code = api.post(self.LINKS).raise_for_status().json()["code"]
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda _: browser.post(URL, json={"code": code}, headers=OWN).status_code, range(16))
        assert sorted(answers) == [204] + [401] * 15

    def test_a_code_is_good_for_its_time_only(self) -> None:
        now = [1000.0]
        links = Links(900, clock=lambda: now[0])
        early, late = links.make(), links.make()
        now[0] += 899
        assert links.take(early.code)
        now[0] += 2
        assert not links.take(late.code)

    def test_the_oldest_go_when_there_are_many(self) -> None:
        links = Links(900)
        codes = [links.make().code for _ in range(65)]
        assert [links.take(code) for code in codes] == [False] + [True] * 64

    def test_no_code_is_guessed_by_what_is_none(self, browser: TestClient) -> None:
        for body in ({}, {"code": ""}, {"code": None}, {"code": "x", "token": "x"}, {"token": ""}):
            assert browser.post(URL, json=body, headers=OWN).status_code == 422
        assert browser.post(URL, json={"code": "x"}, headers=OWN).status_code == 401


class TestAClosedSession:
    def test_is_nobody_for_who_copied_its_cookie_also_after_a_restart(
        self, browser: TestClient, app: Application
    ) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        copied = dict(browser.cookies)
        assert browser.delete(URL, headers=OWN).status_code == 204
        browser.cookies.update(copied)
        assert browser.get("/api/v1/jobs").status_code == 401
        app.sessions = Sessions(app.settings.home, app.keys, 14)
        assert browser.get("/api/v1/jobs").status_code == 401
        assert (app.settings.home / "signed-out.json").stat().st_mode & 0o777 == 0o600

    def test_leaves_the_others_open(self, browser: TestClient, api: TestClient, app: Application) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        other = TestClient(browser.app, base_url="http://127.0.0.1:8080")
        other.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        browser.delete(URL, headers=OWN).raise_for_status()
        assert other.get("/api/v1/jobs").status_code == 200

    def test_is_forgotten_once_its_cookie_is_too_old(self, app: Application) -> None:
        now = [1000.0]
        sessions = Sessions(app.settings.home, app.keys, 1, clock=lambda: now[0])
        first, second = sessions.begin(), sessions.begin()
        sessions.close(first)
        assert (sessions.user(first), sessions.user(second)) == (None, app.keys.user)
        now[0] += 90_000
        sessions.close(second)
        assert list(json.loads((app.settings.home / "signed-out.json").read_text())) == [second["id"]]


class TestReadingWithACookie:
    @pytest.mark.parametrize("site", ["same-site", "cross-site"])
    def test_from_a_page_of_another_origin_is_refused(self, browser: TestClient, app: Application, site: str) -> None:
        """Another port of this host is the same site for a browser: it sends the cookie along."""
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()
        assert browser.get("/api/v1/jobs", headers={"Sec-Fetch-Site": site}).status_code == 403
        assert browser.get("/api/v1/jobs", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200

    def test_behind_tls_the_cookie_stays_there(self, settings: Settings) -> None:
        secure = settings.model_copy(update={"https": True})
        with TestClient(create_app(secure), base_url="https://127.0.0.1:8080") as client:
            token = client.app.state.application.keys.token  # type: ignore[attr-defined]
            answer = client.post(URL, json={"token": token}, headers={"Origin": "https://127.0.0.1:8080"})
        assert "secure" in answer.headers["set-cookie"].lower()


class TestUnsafeMethodsWithACookie:
    @pytest.fixture(autouse=True)
    def _signed_in(self, browser: TestClient, app: Application) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN).raise_for_status()

    @pytest.mark.parametrize(
        "headers",
        [{}, {"Origin": "http://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
         {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://127.0.0.1:9999"}],
    )  # fmt: skip
    def test_need_the_same_origin(self, browser: TestClient, spec: dict[str, object], headers: dict[str, str]) -> None:
        assert browser.post("/api/v1/jobs", json=spec, headers=headers).status_code == 403
        assert browser.get("/api/v1/jobs").json()["items"] == []

    @pytest.mark.parametrize("headers", [OWN, {"Sec-Fetch-Site": "same-origin"}])
    def test_are_taken_from_the_own_page(
        self, browser: TestClient, spec: dict[str, object], headers: dict[str, str]
    ) -> None:
        assert browser.post("/api/v1/jobs", json=spec, headers=headers).status_code == 201


class TestKeys:
    def test_are_made_once_and_kept_to_the_user(self, tmp_path: Path) -> None:
        first = load_keys(tmp_path)
        assert load_keys(tmp_path) == first
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("token", "session.key")} == {0o600}

    def test_that_others_can_read_are_refused(self, tmp_path: Path) -> None:
        load_keys(tmp_path)
        (tmp_path / "token").chmod(0o644)
        with pytest.raises(KeyFileError, match="chmod 600"):
            load_keys(tmp_path)

    def test_a_new_token_ends_old_sessions(self, browser: TestClient, app: Application) -> None:
        browser.post(URL, json={"token": app.keys.token}, headers=OWN)
        object.__setattr__(app.keys, "token", "another")
        assert browser.get(URL).status_code == 401
