"""The log: lines for people or JSON for machines, each with the request and the job that it is about."""

from __future__ import annotations

import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from lockstep_slurm.job.identity import is_job_id

_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_request: ContextVar[str | None] = ContextVar("request", default=None)
_job: ContextVar[str | None] = ContextVar("job", default=None)


def about_request(request_id: str) -> None:
    """What this context logs from here on is about this request."""
    _request.set(request_id)


def about_job(job_id: str) -> None:
    """What this context logs from here on is about this job."""
    _job.set(job_id)


def request_id() -> str | None:
    """The request that this context answers."""
    return _request.get()


def configure(form: Literal["auto", "text", "json"]) -> None:
    """Logs to standard error; ``auto``: lines for people on a terminal, JSON anywhere else."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.addFilter(add_context)
    handler.setFormatter(json_formatter() if as_json else Plain())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def add_context(record: logging.LogRecord) -> bool:
    """Adds the request's id, and the job's: the one among the message's arguments, else the one of the context."""
    if (found := _request.get()) is not None:
        record.request_id = found
    named = record.args.values() if isinstance(record.args, dict) else record.args or ()
    job = next((value for value in named if isinstance(value, str) and len(value) == 36 and is_job_id(value)), None)
    if (found := job or _job.get()) is not None:
        record.job_id = found
    return True


def json_formatter() -> logging.Formatter:
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``message``, and what else is known."""
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        timestamp="time",
        # uvicorn's, for terminals; the message is there without colours as well.
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        json_ensure_ascii=False,
    )


class Plain(logging.Formatter):
    """A line for people; in UTC. A message stays on its line, whatever a name or a path in it has: text is data."""

    def __init__(self) -> None:
        super().__init__(_PLAIN)
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Without control characters, and with the request's id where there is one."""
        record.message = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), record.message)
        line = super().formatMessage(record)
        return f"{line} [{record.request_id}]" if hasattr(record, "request_id") else line
