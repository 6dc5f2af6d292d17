"""The forms of the texts of specs and requests: each pattern, and the words by which a person is told of it."""

from __future__ import annotations

from typing import Final

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
WORD: Final = r"^[A-Za-z0-9][A-Za-z0-9_.+@:/-]*$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
MEMORY: Final = r"^[0-9]+[KMGT]?$"
TIME_LIMIT: Final = r"^(\d+|\d+:\d{2}|\d+:\d{2}:\d{2}|\d+-\d{1,2}(:\d{2}){0,2})$"
BEGIN: Final = r"^(now(\+\d+(seconds|minutes|hours|days|weeks)?)?|\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2})?)?)$"
CONSTRAINT: Final = r"^[A-Za-z0-9_.&|()\[\]*,-]+$"
PROGRAM: Final = r"^(/[A-Za-z0-9_./+-]*|[A-Za-z0-9][A-Za-z0-9_.-]*)$"
MAIL: Final = r"^[A-Za-z0-9_.+@-]+$"
INTERFACE: Final = r"^[A-Za-z0-9_.:@-]{1,15}$"
SUBNET: Final = r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$"
PORTS: Final = r"^[1-9]\d{3,4}-[1-9]\d{3,4}$"
SHORT_WORD: Final = r"^[a-z][a-z0-9_]{0,31}$"
FACTORY: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
CHECKPOINT: Final = r"^(last|best|[0-9]{1,18})$"

WORDS: Final = {
    NAME: "letters, digits, '_', '.' and '-', a letter or digit first",
    WORD: "one word of letters, digits and '_.+@:/-', a letter or digit first",
    VARIABLE: "letters, digits and '_', no digit first",
    MEMORY: "a whole number and K, M, G or T, such as 4G",
    TIME_LIMIT: "minutes, or a form of sbatch's such as 1:00:00 or 1-12",
    BEGIN: "a moment such as 2026-12-01T08:00 or now+2hours",
    CONSTRAINT: "node features joined by & or |, such as icelake&nvme",
    PROGRAM: "a program's name, or its absolute path of letters, digits and '_./+-'",
    MAIL: "one mail address",
    INTERFACE: "a network interface's name, such as ib0",
    SUBNET: "an IPv4 network, such as 10.1.0.0/16",
    PORTS: "two ports with a dash between, such as 20000-29999",
    SHORT_WORD: "a short word of lower-case letters, digits and '_', a letter first, such as pmix or images_per_s",
    FACTORY: "a module and a function in it, such as mypackage.models:build",
    CHECKPOINT: "last, best, or a step such as 1500",
}
"""What a value of each form is."""
