"""Signing in and out, and who is let in at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from lockstep_service.auth.service import KeyFileError, load_keys
from lockstep_service.boundary import Application

URL = "/api/v1/session"
OWN = {"Origin": "http://127.0.0.1:8080"}


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One database is enough here: sessions are not stored."""
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
