"""How Python runs a module of ours without importing anything from the current folder (standard library only).

``python -m`` and ``python -c`` put the current folder first on ``sys.path``: a folder that holds a ``json.py`` or a
``lockstep_worker`` would be imported in place of what is meant. ``-P`` exists from Python 3.11 on only.
"""

from __future__ import annotations

import sys

SAFE = 'import sys; sys.path[:1] == [""] and sys.path.pop(0)'
"""The first statement of a ``-c``: ``sys`` is built in, so nothing was imported before."""
BOOT = f'{SAFE}; del sys.argv[0]; import runpy; runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)'
"""``python -c BOOT MODULE ARGUMENTS``: as ``python -m MODULE ARGUMENTS``, but for the current folder."""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs ``module`` with this very Python, as ``python -m`` would."""
    return [sys.executable, "-c", BOOT, module, *arguments]
