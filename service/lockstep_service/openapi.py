"""The OpenAPI document, by which the web client is made: ``python -m lockstep_service.openapi > web/openapi.json``."""

from __future__ import annotations

import json
import sys
from typing import Any

from lockstep_service.app import routes


def document() -> dict[str, Any]:
    """The document as one JSON object; the same for every installation of one version."""
    return routes().openapi()


def main() -> int:
    """Prints the document."""
    json.dump(document(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
