"""The service's client for the command line: one place for the token, deadlines and problems (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from lockstep_slurm.cli.home import NoServiceError, service_address
from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job.identity import is_job_id

if TYPE_CHECKING:
    import httpx
    from httpx_sse import EventSource

Json = dict[str, Any]
# How many of the newest jobs a short name or a part of an id is looked for in.
LOOK_BACK = 200


class ProblemError(LockstepError):
    """The service said no; ``status`` is HTTP's, the message is the problem's own words and places."""

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.problem = problem
        places = [f"{found['where']}: {found['message']}" for found in problem.get("errors") or []]
        detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
        if len(places) > 1:
            detail = "\n  ".join([str(problem.get("title") or detail), *places])
        elif places:
            detail = places[0]
        super().__init__(detail)


class Api:
    """One connection to the service. Methods raise ``ProblemError``, or ``NoServiceError`` where it does not answer."""

    def __init__(self) -> None:
        import httpx  # takes 90 ms, which a command without a service need not wait for

        self.address = service_address()
        self._client = httpx.Client(
            base_url=f"{self.address.url}/api/v1",
            headers={"Authorization": f"Bearer {self.address.token}"},
            timeout=httpx.Timeout(30, connect=5),
            trust_env=False,  # a proxy of the shell's must not see the token
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> Json:
        """The JSON answer to a GET."""
        return self._json(self._send("GET", path, params=query))

    def text(self, path: str) -> str:
        """The answer to a GET as text."""
        return self._send("GET", path).text

    def post(self, path: str, body: object = None, headers: dict[str, str] | None = None, **query: str) -> Json:
        """The JSON answer to a POST."""
        return self._json(self._send("POST", path, json=body, headers=headers, params=query))

    @contextmanager
    def events(self, path: str, last_event_id: str | None) -> Iterator[EventSource]:
        """A server-sent event stream, continued after ``last_event_id`` where given."""
        import httpx
        from httpx_sse import connect_sse

        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        with connect_sse(self._client, "GET", path, headers=headers, timeout=httpx.Timeout(45, connect=5)) as source:
            if source.response.is_error:
                source.response.read()
                raise _problem(source.response)
            yield source

    def job_id(self, text: str) -> str:
        """The id that a person means by ``text``: an id, the end of one, or the name of the newest job so called."""
        if is_job_id(text):
            return text
        jobs = self.get("/jobs", limit=LOOK_BACK)["items"]
        found = [job["id"] for job in jobs if job["id"].endswith(text)] if len(text) >= 4 else []
        found = found or [job["id"] for job in jobs if job["name"] == text][:1]
        if len(found) != 1:
            detail = (
                f"{len(found)} of the newest {LOOK_BACK} jobs have an id that ends in {text!r}; give more of it"
                if found
                else f"none of the newest {LOOK_BACK} jobs is called {text!r} or has an id that ends so; "
                "`lockstep ls` shows them"
            )
            raise ProblemError(404, {"detail": detail})
        return str(found[0])

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own options
        import httpx

        try:
            response = self._client.request(method, path, **options)
        except httpx.TransportError as error:
            raise NoServiceError(
                f"the service at {self.address.url} does not answer ({error}); is `lockstep serve` running?"
            ) from None
        if response.is_error:
            raise _problem(response)
        return response

    def _json(self, response: httpx.Response) -> Json:
        answer: Json = response.json()
        return answer


def _problem(response: httpx.Response) -> ProblemError:
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": f"the service answered HTTP {response.status_code}: {response.text[:200]}"}
    return ProblemError(response.status_code, problem)
