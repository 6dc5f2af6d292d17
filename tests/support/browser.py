"""Finding a Chromium that can run headless here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def chromium() -> Path | None:
    """The one that ``LOCKSTEP_CHROMIUM`` names, the distribution's, or Playwright's own; None without any."""
    named = os.environ.get("LOCKSTEP_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if named:
        return Path(named)
    # Ubuntu's chromium is a snap, which needs systemd; there the set-up lets Playwright fetch one.
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    found = sorted(cache.glob("chromium*/chrome-*/*hrome*"))
    return next((path for path in reversed(found) if path.is_file() and os.access(path, os.X_OK)), None)
