"""What the sections of a spec are made of: ``Section``, and the kinds of text that stand in one."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from lockstep_slurm.job import forms

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")

_HALF = re.compile(r"[\ud800-\udfff]")
"""JSON can say half of a surrogate pair; no file and no database takes it."""


def _plain(text: str) -> str:
    """Refuses control characters: in a script header, a newline would end the directive and start a command."""
    if found := _HALF.search(text):
        raise ValueError(f"has {found.group()!r} at position {found.start()}, half of a character; remove it")
    if found := _CONTROL.search(text):
        raise ValueError(f"has the control character {found.group()!r} at position {found.start()}; remove it")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"is {text!r}, which is relative; give the absolute path that compute nodes see")
    return text


def _network(text: str) -> str:
    try:
        ipaddress.IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"is {text!r}, which is no IPv4 network: {error}") from None
    return text


def _one_group(text: str) -> str:
    """Refuses what is no regular expression with exactly one group."""
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is {text!r}, which is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"is {text!r}, which has {groups} groups; put the figure, and nothing else, in parentheses")
    return text


Line = Annotated[str, AfterValidator(_plain), Field(min_length=1, max_length=4096)]
"""Text on one line, without control characters."""
Word = Annotated[str, Field(min_length=1, max_length=128, pattern=forms.WORD)]
"""One word of Slurm's: a partition, an account, a QOS, a reservation."""
AbsolutePath = Annotated[Line, AfterValidator(_absolute)]
JobName = Annotated[str, Field(min_length=1, max_length=64, pattern=forms.NAME)]
VariableName = Annotated[str, Field(pattern=forms.VARIABLE, max_length=128)]
Memory = Annotated[str, Field(pattern=forms.MEMORY)]
TimeLimit = Annotated[str, Field(pattern=forms.TIME_LIMIT)]
BeginTime = Annotated[str, Field(pattern=forms.BEGIN)]
Subnet = Annotated[str, Field(pattern=forms.SUBNET), AfterValidator(_network)]
Metric = Annotated[str, Field(pattern=forms.SHORT_WORD)]
LinePattern = Annotated[Line, AfterValidator(_one_group)]
"""A regular expression of Python's with one group, the figure, searched for in each line that a rank prints."""


class Section(BaseModel):
    """A part of the spec; a key it does not know is an error, so that a typing mistake is never a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)
