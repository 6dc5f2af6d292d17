"""The dashboard's files, every page from one ``index.html``, and a plain word when they have not been built."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from lockstep_service import problems
from lockstep_service.errors import NotFoundError

_METHODS = {"GET", "HEAD"}
_NOT_BUILT = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Lockstep</title></head><body>
<h1>The dashboard has not been built</h1>
<p>The service is running, and its API answers under <code>/api/v1</code>.</p>
<p>To build the pages: <code>npm --prefix web ci &amp;&amp; npm --prefix web run build</code>.</p>
</body></html>
"""


def dashboard_folder() -> Path:
    """Where the built pages are: beside this package when it is installed, in the repository otherwise."""
    installed = Path(__file__).parent / "_web"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "web" / "dist"


def _file(root: Path, path: str) -> Path | None:
    """The page's file of this path; None for what is none, or leads out of ``root``."""
    try:
        wanted = (root / path).resolve()
        found = wanted.is_file() and wanted.is_relative_to(root) and not wanted.name.startswith(".")
    except (ValueError, OSError):
        return None  # a NUL in it, or a name longer than a file can have
    return wanted if found else None


def mount_dashboard(api: FastAPI, folder: Path | None = None) -> None:
    """Serves the pages from ``folder`` for every path that no other route has."""
    root = (folder or dashboard_folder()).resolve()

    @api.api_route("/{path:path}", methods=sorted(_METHODS), include_in_schema=False)
    def page(request: Request, path: str) -> Response:
        if path == "api" or path.startswith("api/"):
            if problems.allowed(request) != _METHODS:
                raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED)
            raise NotFoundError(f"There is no {request.url.path} in this API.")
        if (wanted := _file(root, path)) is not None:
            # The build puts a hash into the name of everything under assets/, so such a file never changes.
            keep = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
            return FileResponse(wanted, headers={"Cache-Control": keep})
        if path.startswith("assets/"):
            raise NotFoundError(f"There is no {request.url.path}.")
        index = root / "index.html"
        if not index.is_file():
            return HTMLResponse(_NOT_BUILT, headers={"Cache-Control": "no-store"})
        return FileResponse(index, headers={"Cache-Control": "no-cache"})
