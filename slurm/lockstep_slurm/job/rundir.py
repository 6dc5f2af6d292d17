"""The run directory: its layout, its making, and its readers (standard library only, Python >= 3.9).

The layout is described in docs/files-of-a-job.md; who writes what is settled in docs/decisions/0001.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lockstep_slurm.errors import LockstepError
from lockstep_slurm.job import beneath
from lockstep_slurm.job.identity import is_job_id
from lockstep_slurm.job.writing import write_new

LOGS = "logs"
"""The folder that is there from the beginning: Slurm opens the script's log before the script runs."""
CLAIMS = "claims"
_AFTER_CLAIMS = ("rendezvous", "spool", "placement")
FOLDERS = (CLAIMS, *_AFTER_CLAIMS, "checkpoints", "exit")
"""Those that a start of the script makes: a submission waits for no more files than it needs."""
REPORT = "report.json"
"""Where its ranks ship to, and with which token."""
STOPPED = 85
"""Exit code of a training that was told to stop and go on later, and has saved (HTCondor's for the same)."""
START_LIMIT = 2000
"""Characters of what a script's own failure may say: some module systems print a page."""
_STARTS_READ = 32
_MOST_CLAIMS = 10_000
"""A requeue makes one; who makes more than this does not train."""
_LONGEST_DOCUMENT = 1 << 20
"""Bytes of a claim or an exit record: a claim has the names of all its nodes."""
_START_NAME = re.compile(r"start-([0-9]{1,18})-([0-9]{1,9})\.txt")
_CLAIM_NAME = re.compile(r"[0-9]{6}\.json")
_ATTEMPT_NAME = re.compile(r"[1-9][0-9]{0,9}")
CHECKPOINT_NAME = re.compile(r"step-([0-9]{9,18})-attempt-([1-9][0-9]{0,9})\.lockstep")
"""A whole checkpoint: the steps completed, and the attempt that saved it."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class RunDirectoryError(LockstepError):
    """A run directory that cannot be made, or is not what it should be."""


@dataclass(frozen=True)
class Claim:
    """Who trains attempt ``attempt``; see docs/decisions/0002."""

    attempt: int
    fence: int
    slurm_job_id: int | None
    """None where there is no Slurm; ``local_id`` is set then."""
    restart_count: int
    cluster: str
    node: str
    nodes: tuple[str, ...]
    ranks: int
    host: str
    pid: int
    claimed: float
    """Seconds since the epoch."""
    step_id: int | None = None
    """The Slurm job step (one ``srun``) whose ranks train; two steps of one job never share an attempt."""
    local_id: str | None = None
    version: int = 1


@dataclass(frozen=True)
class Start:
    """A start of the script that ended before there was a rank to claim it, as the script itself tells."""

    slurm_job_id: int
    restart_count: int
    message: str
    """One line: the words of whatever failed, without control characters, cut to ``START_LIMIT``."""


@dataclass(frozen=True)
class Exit:
    """How an attempt ended: ``code`` is the training's exit code, or None when ``signal`` ended it."""

    attempt: int
    fence: int
    code: int | None
    signal: int | None
    rank: int
    node: str
    message: str | None
    """One plain sentence, where there is something to say."""
    ended: float
    """Seconds since the epoch."""
    version: int = 1

    @property
    def ok(self) -> bool:
        """Whether the training ended with code 0."""
        return self.code == 0


_Record = TypeVar("_Record", Claim, Exit)


def make_run_directory(
    runs: Path, job_id: str, spec_json: str, script: str, *, by_hand: bool, report: str | None = None
) -> Path:
    """Makes ``<runs>/<job_id>`` with the spec, the script and its origin, all of it or nothing; returns its path.

    ``by_hand``: it is the start of a script that makes it, so the folders of a start are in it as well. ``report``: the
    text of its ``report.json``, where it has one from the beginning.

    Raises ``RunDirectoryError`` when it exists, when ``job_id`` is none, or when the file system refuses.
    """
    if not is_job_id(job_id):
        raise RunDirectoryError(f"{job_id!r} is not a job id (a UUIDv7), so it names no run directory")
    final = runs / job_id
    partial = runs / f".{job_id}.{secrets.token_hex(4)}.partial"
    try:
        runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        try:
            for name in (LOGS, *FOLDERS) if by_hand else (LOGS,):
                (partial / name).mkdir(mode=0o700)
            origin = {"version": 1, "job_id": job_id, "by_hand": by_hand, "created": time.time()}
            texts = {"spec.json": spec_json, "job.sbatch": script, "origin.json": json.dumps(origin)}
            write_new({partial / name: text for name, text in (texts | ({REPORT: report} if report else {})).items()})
            # Renaming onto a folder that is not empty fails, so of two makers of one id the second is told.
            partial.rename(final)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        why = "there is one already" if final.exists() else f"{error.strerror} ({error.filename})"
        raise RunDirectoryError(f"cannot make the run directory {final}: {why}") from error
    return final


def check_run_directory(run: Path) -> Path:
    """``run`` as an absolute path, when it is a whole run directory; else ``RunDirectoryError`` says what is not."""
    run = run.absolute()
    if not run.is_dir():
        raise RunDirectoryError(
            f"{run} is not a folder that this node can see; run directories must be on a shared file system"
        )
    if not is_job_id(run.name):
        raise RunDirectoryError(f"{run} is not a run directory: its name is not a job id")
    for name in ("spec.json", "origin.json", "job.sbatch"):
        if not (run / name).is_file():
            raise RunDirectoryError(f"{run} is not a run directory: it has no {name}")
    return run


def begin_start(run: Path) -> Path:
    """What ``check_run_directory`` returns, with the folders of a start in it: those that are missing are made."""
    run = check_run_directory(run)
    # By the claims it is known who trains, so they are made first; others without them mean that they are lost.
    others = [name for name in _AFTER_CLAIMS if (run / name).exists()]
    try:
        (run / CLAIMS).mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if others:
            (run / CLAIMS).rmdir()
            raise RunDirectoryError(
                f"{run} has lost its folder {CLAIMS}, by which it is known who trains: there is {', '.join(others)} of "
                "earlier starts; put it back, or submit a new job"
            )
    for name in (LOGS, *FOLDERS):
        (run / name).mkdir(mode=0o700, exist_ok=True)
    return run


def file_name(text: str) -> str:
    """``text`` as a file's name; raises ``RunDirectoryError`` where it could leave its folder."""
    if not _FILE_NAME.fullmatch(text):
        raise RunDirectoryError(f"{text!r} cannot be a file's name: only letters, digits, '_', '.' and '-' are used")
    return text


def claim_file(run: Path, fence: int) -> Path:
    """Where the claim with this fence is."""
    return run / "claims" / f"{fence:06d}.json"


def exit_file(run: Path, attempt: int) -> Path:
    """Where the attempt's exit record is."""
    return run / "exit" / f"{attempt}.json"


def stopped_file(run: Path, slurm_job_id: int, restart_count: int) -> Path:
    """Where a start of the job whose training was told to stop, and has saved, leaves by which signal it was told."""
    return run / "exit" / f"stopped-{slurm_job_id}-{restart_count}.txt"


def rendezvous_file(run: Path, attempt: int) -> Path:
    """Where rank 0 says where the ranks of the attempt meet."""
    return run / "rendezvous" / f"{attempt}.json"


def placement_file(run: Path, attempt: int, node: str) -> Path:
    """Where the node's local rank 0 says what was planned."""
    return run / "placement" / str(attempt) / f"{file_name(node)}.json"


def spool_file(run: Path, attempt: int, node: str) -> Path:
    """Where the node's writer appends its records."""
    return run / "spool" / str(attempt) / f"{file_name(node)}.jsonl"


def spool_files(run: Path, attempt: int) -> list[Path]:
    """The spools of an attempt, one a node, by node name; whether each is a plain file shows when it is opened."""
    try:
        names = beneath.names_in(run, "spool", str(attempt))
    except FileNotFoundError:
        return []
    return [run / "spool" / str(attempt) / name for name in sorted(names) if name.endswith(".jsonl")]


def open_spool(file: Path) -> BinaryIO:
    """The spool that ``spool_file`` or ``spool_files`` named, for reading; raises as ``beneath.open_file``."""
    return beneath.open_file(file.parents[2], "spool", file.parent.name, file.name)


def saved_steps(run: Path) -> list[int]:
    """The steps of which there are checkpoints, in order; none where no attempt has saved one."""
    try:
        names = beneath.names_in(run, "checkpoints")
    except FileNotFoundError:
        return []
    return sorted({int(found[1]) for name in names if (found := CHECKPOINT_NAME.fullmatch(name))})


def spool_attempts(run: Path) -> list[int]:
    """The attempts that left a spool, in order."""
    try:
        names = beneath.names_in(run, "spool")
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if _ATTEMPT_NAME.fullmatch(name))


def read_claims(run: Path) -> list[Claim]:
    """The claims, lowest fence first; one that cannot be read is an error, since nothing may be decided without it.

    Raises ``RunDirectoryError`` for one that is none, ``OSError`` for what cannot be opened, ``FileNotFoundError``
    where there is no run directory.
    """
    names = _claim_names(run)
    if len(names) > _MOST_CLAIMS:
        raise RunDirectoryError(f"{run} has {len(names)} claims, more than {_MOST_CLAIMS}; they are not read")
    return [_read_claim(run, name) for name in names]


def newest_fence(run: Path) -> int:
    """The highest fence that was claimed, 0 where none was. One directory listing; a start has made the folder."""
    return max((int(name[:6]) for name in _claims_among(beneath.names_in(run, CLAIMS))), default=0)


def read_exit(run: Path, attempt: int) -> Exit | None:
    """How the attempt ended, or None where no exit record was written (yet)."""
    path = exit_file(run, attempt)
    try:
        return _made(Exit, _read_document(run, "exit", path.name), path)
    except FileNotFoundError:
        return None


def read_starts(run: Path) -> list[Start]:
    """The newest starts that came to no rank, by Slurm job and restart; what is no plain file is left out."""
    names = (_START_NAME.fullmatch(name) for name in _names(run, "exit"))
    keys = sorted((int(match.group(1)), int(match.group(2)), match.group()) for match in names if match)
    found = []
    for slurm_job_id, restart_count, name in keys[-_STARTS_READ:]:
        try:
            with beneath.open_file(run, "exit", name) as file:
                raw = file.read(4 * START_LIMIT)
        except beneath.NotPlainError:
            continue
        found.append(Start(slurm_job_id, restart_count, one_line(raw.decode("utf-8", "replace"))))
    return found


def one_line(text: str) -> str:
    """``text`` as one line for a person: no terminal's escapes, no control characters, cut to ``START_LIMIT``."""
    plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])", "", text)
    line = " ".join("".join(character if character.isprintable() else " " for character in plain).split())
    return line if len(line) <= START_LIMIT else f"{line[: START_LIMIT - 3]}..."


def as_json(record: Claim | Exit) -> str:
    """A claim or an exit record as the text of its file."""
    return json.dumps(asdict(record))


def claimed_attempts(run: Path) -> frozenset[int]:
    """The attempts that were claimed, by the names of their files; none where the run directory is not there."""
    try:
        return frozenset(int(name[:6]) for name in _claim_names(run))
    except (FileNotFoundError, beneath.NotPlainError):
        return frozenset()


def _read_claim(run: Path, name: str) -> Claim:
    path, number = run / CLAIMS / name, int(name[:6])
    document = _read_document(run, CLAIMS, name)
    nodes = document.get("nodes", [])
    if not isinstance(nodes, list):
        raise RunDirectoryError(f"{path} is no claim: its nodes are no list but {type(nodes).__name__}")
    claim = _made(Claim, document | {"nodes": tuple(nodes)}, path)
    # A copy under another name, say: two attempts of one number, or a number that is never free.
    if not claim.attempt == claim.fence == number:
        raise RunDirectoryError(
            f"{path} is no claim of attempt {number}: it says attempt {_short(claim.attempt)}, fence "
            f"{_short(claim.fence)}; if somebody has put it there, take it away"
        )
    return claim


def _short(value: object) -> str:
    """What stands where a number should, for a message: anything may."""
    return f"{value!r:.40}" if isinstance(value, (int, float, str)) else type(value).__name__


def _claim_names(run: Path) -> list[str]:
    return _claims_among(_names(run, CLAIMS))


def _claims_among(names: list[str]) -> list[str]:
    return sorted(name for name in names if _CLAIM_NAME.fullmatch(name))


def _names(run: Path, folder: str) -> list[str]:
    """The names in a folder of the run directory: none before a start has made it."""
    try:
        return beneath.names_in(run, folder)
    except FileNotFoundError:
        if not run.is_dir():
            raise
        return []


def _read_document(run: Path, *names: str) -> dict[str, Any]:
    path = run.joinpath(*names)
    try:
        document = json.loads(beneath.read_file(run, *names, limit=_LONGEST_DOCUMENT).decode("utf-8"))
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not JSON: {error}") from error
    except RecursionError:
        raise RunDirectoryError(f"{path} is nested too deeply to be read") from None
    if not isinstance(document, dict):
        raise RunDirectoryError(f"{path} is not a JSON object")
    return document


def _made(kind: type[_Record], document: dict[str, Any], path: Path) -> _Record:
    """An instance of a dataclass from a document; unknown keys are left out, as the format promises."""
    known = {field.name for field in fields(kind)}
    try:
        return kind(**{key: value for key, value in document.items() if key in known})
    except TypeError as error:
        raise RunDirectoryError(f"{path} lacks a key: {error}") from error
