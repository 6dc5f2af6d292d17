"""From a script's ``#SBATCH`` header to the fields of pyslurm's ``JobSubmitDescription``, which does not read it.

The header is the one place where ``job.script.directives`` writes what a job asks for; this reads it in exactly the
form that the script's template gives it, and raises ``NoWordsError`` for everything that it has no words for, so that
nothing a script asks for is ever lost: such a script is submitted with sbatch.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping

from lockstep_slurm.client import sbatch
from lockstep_slurm.client.protocol import Submission

_DIRECTIVE = re.compile(r"""#SBATCH --(?P<option>[a-z][a-z-]*)(?:=(?P<value>[^\s"'\\#]+))?""")
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_COUNT = re.compile(r"[1-9][0-9]{0,8}")


class NoWordsError(Exception):
    """This cannot be said through pyslurm; the message says what."""


def header(script: str) -> dict[str, str | None]:
    """The options of a script's header, without ``--``; None for one without a value. The last of several counts.

    As with sbatch, the header ends at the first line that is neither blank nor a comment. ``NoWordsError`` where a line
    of it has another form than ``#SBATCH --option`` or ``#SBATCH --option=value`` without blanks and quotes.
    """
    options: dict[str, str | None] = {}
    for line in script.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        if not line.startswith(("#SBATCH", "#SLURM")):
            continue
        found = _DIRECTIVE.fullmatch(line.rstrip())
        if found is None:
            raise NoWordsError(f"the line {line!r} has another form than '#SBATCH --option=value'")
        if found["option"] in {"requeue", "no-requeue"}:
            options.pop("requeue", None)
            options.pop("no-requeue", None)
        options[found["option"]] = found["value"]
    return options


def describe(submission: Submission, script: str) -> dict[str, object]:
    """The fields of ``JobSubmitDescription`` with which pyslurm asks for what sbatch would ask for.

    ``script`` is the text of ``submission.script``. The ``environment`` lacks what sbatch says of the process that
    submits. ``NoWordsError`` where pyslurm (22.5.3, 25.11.2) cannot ask for it.
    """
    _check_script(submission, script)
    options = header(script)
    if options.pop("export", None) != "NONE":
        raise NoWordsError("without #SBATCH --export=NONE the job gets the environment of sbatch")
    fields: dict[str, object] = {}
    for option, value in options.items():
        if option not in _FIELDS:
            raise NoWordsError(f"there is no field for --{option}")
        fields |= _FIELDS[option](value)
    # What the command line says in any case (sbatch.arguments), and sbatch's own defaults.
    fields |= {
        "name": submission.name,
        "standard_output": sbatch.output_pattern(submission),
        "standard_in": "/dev/null",
        "log_files_open_mode": "append",
        "working_directory": str(submission.directory),
        # By its path: with the text pyslurm takes no arguments, and 22.5.3 cannot tell a long text from a path.
        "script": str(submission.script),
        "script_args": [str(submission.script), *submission.arguments],
        **_tasks(fields),
        "environment": _environment(submission, fields),
        "get_user_environment": True,
    }
    if submission.hold:
        fields["priority"] = 0
    return fields


def _check_script(submission: Submission, script: str) -> None:
    if not script.startswith("#!") or "\0" in script or "\r" in script:
        raise NoWordsError("the script has no #! or has characters that sbatch has words about")
    if "\\" in str(submission.output):
        raise NoWordsError("the output has a backslash, which sbatch has words about")
    if not all(submission.arguments):
        raise NoWordsError("an argument is empty, which would end the list of arguments")
    texts = (submission.script, submission.output, submission.directory, *submission.arguments)
    if any("\0" in str(text) or not _is_unicode(str(text)) for text in texts):
        raise NoWordsError("a path or an argument is not UTF-8")


def _environment(submission: Submission, fields: Mapping[str, object]) -> dict[str, str]:
    """What sbatch with --export=NONE adds to the login environment of the job's user (22.05, 25.11)."""
    environment = {
        "SLURM_EXPORT_ENV": "NONE",
        "SLURM_JOB_NAME": submission.name,
        "SLURM_OPEN_MODE": "a",
        "SLURM_SUBMIT_DIR": str(submission.directory),
    }
    for variable, field in (("SLURM_NTASKS_PER_NODE", "ntasks_per_node"), ("SLURM_CPUS_PER_TASK", "cpus_per_task")):
        if field in fields:
            environment[variable] = str(fields[field])
    return environment


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _tasks(fields: Mapping[str, object]) -> dict[str, object]:
    """Nodes and tasks as sbatch works them out; left alone, pyslurm asks for one node and one task."""
    nodes, each, tasks = (fields.get(name) for name in ("nodes", "ntasks_per_node", "ntasks"))
    if isinstance(nodes, int) and isinstance(each, int) and tasks is None:
        return {"ntasks": nodes * each}
    if tasks == 1 and each is None:
        return {"nodes": nodes or 1}
    if isinstance(nodes, int) and isinstance(tasks, int) and each is None:
        return {}
    raise NoWordsError("nodes and tasks are given in a combination of which pyslurm asks for something else")


def _text(field: str) -> Callable[[str | None], dict[str, object]]:
    def field_of(value: str | None) -> dict[str, object]:
        return {field: _given(value, field)}

    return field_of


def _count(field: str) -> Callable[[str | None], dict[str, object]]:
    def field_of(value: str | None) -> dict[str, object]:
        if _COUNT.fullmatch(_given(value, field)) is None:
            raise NoWordsError(f"{field} is {value!r}, which is no count")
        return {field: int(_given(value, field))}

    return field_of


def _given(value: str | None, field: str) -> str:
    if value is None:
        raise NoWordsError(f"there is no value for {field}")
    return value


def _flag(**fields: object) -> Callable[[str | None], dict[str, object]]:
    def field_of(value: str | None) -> dict[str, object]:
        if value is not None:
            raise NoWordsError(f"the value {value!r} of a flag, {', '.join(fields)}")
        return fields

    return field_of


def _memory(value: str | None) -> dict[str, object]:
    """MiB per node, a part of one counted whole. pyslurm cannot ask for 0, which is all of a node's memory."""
    found = re.fullmatch(r"([0-9]{1,12})([KMGT]?)", _given(value, "mem"))
    mib = -int(-int(found[1]) * _UNITS[found[2] or "M"] // 1) if found else 0
    if mib == 0:
        raise NoWordsError(f"memory of {value!r}")
    return {"memory_per_node": mib}


def _time(value: str | None) -> dict[str, object]:
    """Minutes as a number, for pyslurm fails on digits in a text; every other form Slurm's library reads itself."""
    text = _given(value, "time")
    if re.fullmatch(r"[0-9:-]+", text) is None or not text.strip("0:-"):
        raise NoWordsError(f"a time limit of {text!r}")
    return {"time_limit": int(text) if text.isdigit() else text}


def _begin(value: str | None) -> dict[str, object]:
    """A text that Slurm's library reads; pyslurm takes mere digits for seconds since the epoch."""
    text = _given(value, "begin")
    if text.isdigit():
        raise NoWordsError(f"a begin of {text!r}")
    return {"begin_time": text}


def _mail_types(value: str | None) -> dict[str, object]:
    """Not ALL, which pyslurm takes for less than sbatch does."""
    types = _given(value, "mail-type").split(",")
    if unknown := set(types) - {"BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT"}:
        raise NoWordsError(f"a mail of type {', '.join(sorted(unknown))}")
    return {"mail_types": types}


def _signal(value: str | None) -> dict[str, object]:
    """Signals by their numbers on this machine, which pyslurm wants: ``USR1@120`` fails, ``10@120`` does not."""
    found = re.fullmatch(r"(?P<name>[A-Z0-9]+)@(?P<seconds>[0-9]{1,5})", _given(value, "signal"))
    number = signal.Signals.__members__.get(f"SIG{found['name']}") if found else None
    if found is None or number is None:
        raise NoWordsError(f"a signal of {value!r}")
    return {"signal": f"{number.value}@{found['seconds']}"}


_FIELDS: Mapping[str, Callable[[str | None], dict[str, object]]] = {
    "account": _text("account"),
    "begin": _begin,
    "constraint": _text("constraints"),
    "cpus-per-task": _count("cpus_per_task"),
    "exclusive": _flag(resource_sharing="exclusive"),
    # Name, output and how it is opened are the submission's.
    "job-name": lambda _: {},
    "mail-type": _mail_types,
    "mail-user": _text("mail_user"),
    "mem": _memory,
    "no-requeue": _flag(is_requeueable=False),
    "nodes": _count("nodes"),
    "ntasks": _count("ntasks"),
    "ntasks-per-node": _count("ntasks_per_node"),
    "open-mode": lambda _: {},
    "output": lambda _: {},
    "partition": _text("partitions"),
    "qos": _text("qos"),
    "requeue": _flag(is_requeueable=True),
    "reservation": _text("reservations"),
    "signal": _signal,
    "time": _time,
}
"""What each option of the header is through pyslurm."""
