"""The core map in a terminal: ``placement.picture`` as text of a given width, with colours where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rich.table import Table
from rich.text import Text

from lockstep_slurm.placement import Placement, Topology
from lockstep_slurm.placement.cpulist import compress
from lockstep_slurm.placement.picture import (
    COLOURS,
    COMPUTE,
    FOREIGN,
    SPARE,
    Cell,
    Domain,
    Mark,
    Picture,
)
from lockstep_slurm.placement.request import ROLES

INDENT = "    "
IDS = 20
"""Columns kept at a row's end for the Linux numbers of its CPUs."""


def headline(topology: Topology) -> str:
    """The machine in one line."""
    counts = [
        (len({core.socket for core in topology.cores}), "socket"),
        (len(topology.numa), "NUMA domain"),
        (len(topology.cores), "core"),
        (len(topology.cpus), "hardware thread"),
    ]
    words = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    return f"{topology.name}: {words}" if topology.name else words


def ranks(placement: Placement) -> Table:
    """The ranks as a table; a column that no rank has anything in is left out."""
    headings = ["rank", "compute", *ROLES, "loader", "NUMA", "memory"]
    rows = []
    for rank in placement.ranks:
        memory = rank.memory.policy + (f" {compress(rank.memory.domains)}" if rank.memory.domains else "")
        rows.append(
            [
                str(rank.local_rank),
                *(
                    compress(cpus).replace(",", ", ") if cpus else ""
                    for cpus in (
                        rank.compute,
                        *(getattr(rank.communication, role) for role in ROLES),
                        rank.loader,
                        rank.numa,
                    )
                ),
                memory,
            ]
        )
    table = Table(box=None, pad_edge=False)
    shown = [index for index in range(len(headings)) if any(row[index] for row in rows)]
    for index in shown:
        table.add_column(headings[index], overflow="fold")
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table


def lines(picture: Picture, width: int) -> Iterator[Text]:
    """The map, line by line, each of at most ``width`` columns as long as a cell with its numbers is no wider."""
    cell = max(
        len(one.text)
        for socket in picture.sockets
        for domain in socket.domains
        for group in domain.groups
        for one in group.cells
    )
    domains = [domain for socket in picture.sockets for domain in socket.domains]
    known = any(domain.memory for domain in (*domains, *picture.memory_alone))
    rows = {domain: list(_rows(domain, cell, width)) for domain in domains}
    room = max(len(row) for of_domain in rows.values() for row, _ in of_domain)
    for socket in picture.sockets:
        yield Text(f"socket {socket.number}", style="bold")
        for domain in socket.domains:
            yield Text(f"  {_title(domain, known=known)}")
            for row, numbers in rows[domain]:
                row.pad_right(room + 1 - len(row))
                yield row.append(numbers, style="dim")
    for domain in picture.memory_alone:
        yield Text(f"  {_title(domain, known=known)}, no cores")
    if picture.cards:
        yield Text(f"cards at no domain: {', '.join(picture.cards)}")
    if picture.offline:
        yield Text("offline CPUs: " + compress(picture.offline).replace(",", ", "))
    yield from _legend(picture, width)


def _title(domain: Domain, *, known: bool) -> str:
    """``known``: the description of the machine says something of memory at all."""
    memory = f", {_size(domain.memory)}" if domain.memory else ", no memory" if known else ""
    return f"NUMA {domain.number}{memory}" + (f", {', '.join(domain.cards)}" if domain.cards else "")


def _size(memory: int) -> str:
    return f"{memory / 2**30:.0f} GiB" if memory >= 2**30 else f"{memory / 2**20:.0f} MiB"


def _rows(domain: Domain, cell: int, width: int) -> Iterator[tuple[Text, str]]:
    """Whole L3 groups side by side as long as they fit, a bar between them; a wide one over several rows."""
    room = max(width - len(INDENT) - IDS, cell + 1)
    most = max((room + 1) // (cell + 1), 1)
    row: list[list[Cell]] = []
    for group in domain.groups:
        cells = group.cells
        taken = sum(len(part) for part in row) * (cell + 1) + 2 * len(row)
        if row and taken + len(cells) * (cell + 1) > room + 1:
            yield _row(row, cell)
            row = []
        if len(cells) > most:
            # As even as it goes, and a multiple of 4 where that costs no further row: so columns are easy to count.
            rows = -(-len(cells) // most)
            each = -(-len(cells) // rows)
            each = -(-each // 4) * 4 if -(-each // 4) * 4 <= most else each
            for start in range(0, len(cells), each):
                yield _row([list(cells[start : start + each])], cell)
            continue
        row.append(list(cells))
    if row:
        yield _row(row, cell)


def _row(groups: Sequence[Sequence[Cell]], cell: int) -> tuple[Text, str]:
    text = Text(INDENT)
    for index, cells in enumerate(groups):
        if index:
            text.append("| ", style="dim")
        for one in cells:
            text.append_text(_cell(one))
            text.append(" " * (cell + 1 - len(one.text)))
    threads = max(len(one.marks) for cells in groups for one in cells)
    numbers = [
        [one.marks[thread].cpu for cells in groups for one in cells if thread < len(one.marks)]
        for thread in range(threads)
    ]
    return text, _numbers(numbers)


def _cell(cell: Cell) -> Text:
    text = Text()
    rest = cell.text
    for mark in cell.marks:
        own = mark.text if rest.startswith(mark.text) and mark.ranks else mark.letter
        text.append(own, style=_style(mark))
        rest = rest[len(own) :]
    return text


def _style(mark: Mark) -> str:
    if not mark.ranks:
        return "dim"
    colour = COLOURS[mark.ranks[0] % len(COLOURS)]
    return colour if mark.letter == COMPUTE else f"reverse {colour}"


def _numbers(threads: Sequence[Sequence[int]]) -> str:
    """Linux's numbers of a row, hardware thread by hardware thread: ``0-7 64-71``; in steps ``0,2..14``."""
    everything = [cpu for numbers in threads for cpu in numbers]
    if sorted(everything) == list(range(min(everything), max(everything) + 1)):
        return compress(everything)
    parts = [_sequence(numbers) for numbers in threads]
    short = " ".join(parts)
    if len(short) < IDS - 1:
        return short
    return f"{parts[0]} ..." if len(parts[0]) + 4 < IDS - 1 else f"{everything[0]} ..."


def _sequence(numbers: Sequence[int]) -> str:
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) == 1 and len(numbers) > 2 and steps != {1}:
        return f"{numbers[0]},{numbers[1]}..{numbers[-1]}"
    return compress(numbers)


def _legend(picture: Picture, width: int) -> Iterator[Text]:
    line = Text("a cell is a core: rank, then")
    for index, (letter, meaning) in enumerate(picture.legend):
        part = Text(f" {letter} ", style="dim" if letter in (SPARE, FOREIGN) else "bold").append(
            meaning + ("," if index + 1 < len(picture.legend) else ""), style="not bold"
        )
        if len(line) + len(part) > width:
            yield line
            line = Text("  ")
        line.append_text(part)
    yield line
