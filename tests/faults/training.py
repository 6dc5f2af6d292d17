"""The training of one submission: a line in the ledger when it starts and one when it ends (standard library only).

Arguments: the ledger, the submission's number, and how long to work (seconds). The ledger is outside the run directory,
where neither the service nor the rank wrapper knows of it: it is the training's own word.
"""

import os
import sys
import time
from pathlib import Path


def say(ledger: str, word: str, number: str) -> None:
    """Appends one line, whole: of O_APPEND writes this short no two are mixed."""
    line = f"{word} {number} {Path(os.environ['LOCKSTEP_RUN']).name} {os.environ['LOCKSTEP_ATTEMPT']} {os.getpid()}\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    _ledger, _number, _seconds = sys.argv[1:]
    say(_ledger, "start", _number)
    time.sleep(float(_seconds))
    say(_ledger, "end", _number)
