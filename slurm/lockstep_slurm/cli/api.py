"""The service's client for the command line: one place for the token, deadlines and problems (RFC 9457)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from lockstep_slurm.cli.home import NoServiceError, service_address
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.identity import is_job_id

if TYPE_CHECKING:
    import httpx
    from httpx_sse import ServerSentEvent

Json = dict[str, Any]
# How many of the newest jobs a short name or a part of an id is looked for in: as many as `lockstep ls` lists at most.
LOOK_BACK = 1000
_PAGE = 200


class ProblemError(LockstepError):
    """The service said no; ``status`` is HTTP's, the message is the problem's own words and places.

    ``retry_after``: seconds that were asked for before the next try; 0 where none were.
    """

    def __init__(self, status: int, problem: Json, retry_after: float = 0.0) -> None:
        self.status = status
        self.problem = problem
        self.retry_after = retry_after
        places = [f"{found['where']}: {found['message']}" for found in problem.get("errors") or []]
        detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        if len(places) > 1:
            detail = "\n  ".join([str(problem.get("title") or detail), *places])
        elif places:
            detail = places[0]
        super().__init__(detail)

    @property
    def passing(self) -> bool:
        """Whether it says nothing of what was asked for: the service, or a proxy before it, cannot just now."""
        return _passing(self.status)


class NotLockstepError(NoServiceError):
    """Something answers at the service's address that is not the service, or cannot prove that it is."""


class Api:
    """One connection to the service. Methods raise ``ProblemError``, or ``NoServiceError`` where it does not answer.

    ``answered``: whether the service has answered here; what answers in its place after that is in its way for a time.
    """

    def __init__(self) -> None:
        import ssl

        import httpx  # takes 90 ms, which a command without a service need not wait for

        self.address = service_address()
        self.answered = False
        try:
            self._client = httpx.Client(
                base_url=f"{self.address.url}/api/v1",
                headers={"Authorization": f"Bearer {self.address.token}"},
                timeout=httpx.Timeout(30, connect=5),
                trust_env=False,  # a proxy of the shell's must not see the token
                # The machine's own authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR, which the line before
                # would have httpx pass over.
                verify=ssl.create_default_context(),
            )
        except httpx.InvalidURL as error:
            raise NoServiceError(
                f"the service's address {self.address.url!r} is none ({error}); is LOCKSTEP_URL right?"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Json:
        """The JSON answer to a GET."""
        return self._send("GET", path, params=query)

    def post(self, path: str, body: object = None, headers: dict[str, str] | None = None, **query: str) -> Json:
        """The JSON answer to a POST."""
        return self._send("POST", path, json=body, headers=headers, params=query)

    @contextmanager
    def events(self, path: str, last_event_id: str | None) -> Iterator[Iterator[ServerSentEvent]]:
        """A stream of server-sent events, continued after ``last_event_id`` where given."""
        import httpx
        from httpx_sse import connect_sse

        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        timeout = httpx.Timeout(45, connect=5)
        with self._reaching(), connect_sse(self._client, "GET", path, headers=headers, timeout=timeout) as source:
            self._check(source.response, stream=True)
            yield source.iter_sse()

    def job_id(self, text: str) -> str:
        """The id that a person means by ``text``: an id, the end of one, or the name of the newest job so called."""
        if is_job_id(text):
            return text
        looked, page = 0, self.get("/jobs", limit=_PAGE)
        while True:
            jobs = page["items"]
            looked += len(jobs)
            found = [job["id"] for job in jobs if job["id"].endswith(text)] if len(text) >= 4 else []
            found = found or [job["id"] for job in jobs if job["name"] == text][:1]
            if found or page["next_cursor"] is None or looked >= LOOK_BACK:
                break
            page = self.get("/jobs", limit=_PAGE, cursor=page["next_cursor"])
        if len(found) != 1:
            detail = (
                f"{len(found)} of the newest {looked} jobs have an id that ends in {text!r}; give more of it"
                if found
                else f"none of the newest {looked} jobs is called {text!r} or has an id that ends so; "
                "`lockstep ls` shows them"
            )
            raise ProblemError(404, {"detail": detail})
        return str(found[0])

    def _send(self, method: str, path: str, **options: Any) -> Json:  # noqa: ANN401 - httpx's own options
        with self._reaching():
            response = self._client.request(method, path, **options)
        self._check(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise self._stranger(f"HTTP {response.status_code} with JSON of another kind")
        return answer

    def _check(self, response: httpx.Response, *, stream: bool = False) -> None:
        """Raises what the answer says where it is not what was asked for: a good one in JSON, or a stream of events."""
        status, kind = response.status_code, response.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or kind.endswith("+json")
        if _passing(status) or (response.is_error and is_json):
            response.read()
            raise self._problem(response, is_json=is_json)
        if response.is_success and (kind == "text/event-stream" if stream else is_json):
            self.answered = True
            return
        said = f" to {response.headers.get('location', '')}" if response.is_redirect else f", {kind}" if kind else ""
        raise self._stranger(f"HTTP {status}{said}")

    def _problem(self, response: httpx.Response, *, is_json: bool) -> ProblemError:
        try:
            problem = response.json() if is_json else None
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {
                "detail": f"HTTP {response.status_code} came from {self.address.url} in place of the service's answer, "
                "most likely from a proxy before it: is the service running?"
            }
        asked = response.headers.get("retry-after", "")
        return ProblemError(response.status_code, problem, float(asked) if asked.isascii() and asked.isdigit() else 0.0)

    def _stranger(self, said: str) -> NotLockstepError:
        shown = "".join(character for character in said if character.isprintable())
        return NotLockstepError(
            f"what answers at {self.address.url} is no Lockstep service ({shown}); LOCKSTEP_URL is the address alone, "
            "such as https://lockstep.example.org or http://login1:8080, and has to lead to the service itself"
        )

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Says what it means where no answer comes."""
        import httpx

        try:
            yield
        except httpx.RequestError as error:
            if (refused := _certificate_error(error)) is not None:
                file = os.environ.get("SSL_CERT_FILE")
                raise NotLockstepError(
                    f"the certificate of the service at {self.address.url} is not accepted: {refused}. Where an "
                    "authority of the site's own has signed it, set SSL_CERT_FILE to the file of that authority's "
                    f"certificate (it is {file or 'not set'} now); and LOCKSTEP_URL has to have a name that the "
                    "certificate is for"
                ) from None
            raise NoServiceError(
                f"the service at {self.address.url} does not answer ({error}); is `lockstep serve` running?"
            ) from None


def _passing(status: int) -> bool:
    """Whether an answer of this status is for now only: too slow, too much at once, or not possible just now."""
    return status in {408, 429} or status >= 500


def _certificate_error(error: BaseException | None) -> str | None:
    """Why the other side's certificate was not accepted, where that is what an error came from."""
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return None
