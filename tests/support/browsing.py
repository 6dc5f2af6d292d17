"""Where a browser finds the dashboard of a test's own service."""

from __future__ import annotations

import json

from support.lockstep import Lockstep


def address(service: Lockstep, path: str = "/", *, link: bool = True) -> str:
    """The address of a page, as a link that lets one browser in; without ``link``, the address alone."""
    if not link:
        return str(json.loads((service.home / "service.json").read_text())["url"]) + path
    base, _, code = service.link().partition("/#")
    return f"{base}{path}#{code}"
