"""Memory-first distribution: which cores each rank of a node gets, by NUMA domain first and cache second.

All ranks get the same number of cores, n, since a faster rank only waits for the others. The fair share is
floor(cores / ranks). Tidy borders may cost a tenth of it and no more; the first of these that does not is taken:

1. no rank spans NUMA domains;
2. each rank has whole domains to itself, neighbours in the tree, and none crosses sockets;
3. ranks that fit into a domain stay within one, the others are made of what is left beside them, within a socket;
4. as 2, but sockets are crossed;
5. as 3, with the whole fair share, and sockets are crossed.

The idea of giving workers memory before cores is mpibind's (Leon et al., LLNL); communication and equal shares are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional, TypeVar

TENTH = 10
"""Of a fair share, at most one part in so many is given up for tidy borders."""


class Unit(NamedTuple):
    """What is dealt out: a core with the CPUs of it that were granted, or one such CPU where cores are divided."""

    place: int
    """Its own position in tree order."""
    core: int
    """Position of its core in the topology's tree order."""
    cpus: tuple[int, ...]
    socket: int
    numa: int
    group: int
    """What a rank should rather lie within: cores that share a cache (L3); the core, where cores are divided."""


Units = list[Unit]
Item = TypeVar("Item")


def distribute(
    units: Sequence[Unit],
    ranks: int,
    limit: Optional[int] = None,  # noqa: UP045
    *,
    tidy: bool = True,
) -> list[Units]:
    """``ranks`` equal, disjoint shares of ``units`` (in tree order, at least one per rank), by local rank.

    ``limit`` is the most units a rank may get; without ``tidy`` nothing is given up for borders. Shares are in tree
    order, and so are their units.
    """
    fair = len(units) // ranks if limit is None else min(limit, len(units) // ranks)
    least = fair - fair // TENTH if tidy else fair
    # Where firmware hides the NUMA domains (one over all sockets), a socket's memory is still nearest to its cores.
    domains: dict[tuple[int, int], Units] = {}
    for unit in units:
        domains.setdefault((unit.socket, unit.numa), []).append(unit)
    parts = list(domains.values())
    shares = _chosen(parts, ranks, range(fair, least - 1, -1))
    return sorted(shares, key=lambda share: share[0].place)


def _chosen(parts: list[Units], ranks: int, sizes: range) -> list[Units]:
    for n in sizes:
        if sum(len(part) // n for part in parts) >= ranks:
            return _within(parts, ranks, n)
    for n in sizes:
        if groups := _whole(parts, ranks, n, by_socket=True):
            return groups
    for n in sizes:
        if not _crossing(parts, ranks, n):
            return _split(parts, ranks, n)
    for n in sizes:
        if groups := _whole(parts, ranks, n, by_socket=False):
            return groups
    return _split(parts, ranks, sizes[0])


def _within(parts: list[Units], ranks: int, n: int) -> list[Units]:
    """Every rank in one domain: one each where there are enough, else in proportion to their cores."""
    able = [part for part in parts if len(part) >= n]
    if ranks <= len(able):
        chosen = [able[rank * len(able) // ranks] for rank in range(ranks)]
        return [share for part in chosen for share in blocks(part, 1, n)]
    counts = _proportion(able, ranks, n)
    return [share for at, part in enumerate(able) for share in blocks(part, counts[at], n)]


def _proportion(parts: Sequence[Sequence[Unit]], ranks: int, n: int) -> list[int]:
    """How many of ``ranks`` each part takes: one by one to where most cores per rank remain, the first of equals."""
    counts = [0] * len(parts)
    for _ in range(ranks):
        open_parts = [at for at, part in enumerate(parts) if (counts[at] + 1) * n <= len(part)]
        counts[max(open_parts, key=lambda at: (len(parts[at]) / (counts[at] + 1), -at))] += 1
    return counts


def _whole(parts: list[Units], ranks: int, n: int, *, by_socket: bool) -> list[Units]:
    """Ranks on neighbouring whole domains, none shared; empty where that cannot be, or makes more ranks span."""
    groups: list[list[Units]] = []
    open_group: list[Units] = []
    for part in parts:
        alone = len(part) >= n
        if alone or (by_socket and open_group and open_group[-1][0].socket != part[0].socket):
            open_group = []
        open_group.append(part)
        if sum(len(one) for one in open_group) >= n:
            groups.append(open_group)
            open_group = []
    single = [group for group in groups if len(group) == 1]
    several = [group for group in groups if len(group) > 1]
    spanning = ranks - sum(len(part) // n for part in parts)
    if len(groups) < ranks or ranks - len(single) != spanning:
        return []
    several = [several[rank * len(several) // spanning] for rank in range(spanning)]
    return [blocks([unit for part in group for unit in part], 1, n, by="numa")[0] for group in (*single, *several)]


def _left(parts: list[Units], n: int) -> dict[int, list[int]]:
    """By socket, in tree order: what is left in its domains once ranks of ``n`` lie in them; one index per unit."""
    left: dict[int, list[int]] = {}
    for at, part in enumerate(parts):
        left.setdefault(part[0].socket, []).extend([at] * (len(part) % n))
    return left


def _crossing(parts: list[Units], ranks: int, n: int) -> int:
    """How many ranks have to cross sockets."""
    spanning = ranks - sum(len(part) // n for part in parts)
    return max(0, spanning - sum(len(left) // n for left in _left(parts, n).values()))


def _split(parts: list[Units], ranks: int, n: int) -> list[Units]:
    """As many ranks as fit within domains, the others of what is left, of one socket where possible."""
    spanning = ranks - sum(len(part) // n for part in parts)
    made: list[list[int]] = []
    rest: list[int] = []
    for number, left in enumerate(_left(parts, n).values()):
        # Every second socket from its end, so that what remains of two neighbours lies together.
        line = left if number % 2 == 0 else left[::-1]
        found = _blocks(line, min(len(line) // n, spanning - len(made)), n, _itself)
        made += found
        rest += sorted((Counter(line) - Counter(at for block in found for at in block)).elements())
    made += _blocks(rest, spanning - len(made), n, _itself)
    return _laid(parts, [Counter(block) for block in made], n)


def _laid(parts: list[Units], pieces: list[Counter[int]], n: int) -> list[Units]:
    """Cores for ranks that are known by how many they have of each domain, so that neighbours' pieces touch."""
    shares: list[Units] = []
    spanning: list[Units] = [[] for _ in pieces]
    for at, part in enumerate(parts):
        own = [(min(piece), rank, piece[at]) for rank, piece in enumerate(pieces) if at in piece]
        front, back = 0, len(part)
        for first, rank, count in sorted(own):
            if first < at:
                spanning[rank] += part[front : front + count]
                front += count
            else:
                spanning[rank] += part[back - count : back]
                back -= count
        shares += blocks(part[front:back], len(part) // n, n)
    return shares + spanning


def blocks(units: Sequence[Unit], count: int, n: int, *, by: str = "group") -> list[Units]:
    """``count`` blocks of ``n`` neighbouring units, in as few groups each as the spare units allow.

    Where whole blocks fit into the groups (an L3's cores), the groups share them as domains share ranks.
    """
    key = _numa if by == "numa" else _group
    groups: dict[int, Units] = {}
    for unit in units:
        groups.setdefault(key(unit), []).append(unit)
    parts = list(groups.values())
    if count and sum(len(part) // n for part in parts) >= count:
        taken = _proportion(parts, count, n)
        return [part[start * n : (start + 1) * n] for at, part in enumerate(parts) for start in range(taken[at])]
    return _blocks(units, count, n, key)


def _numa(unit: Unit) -> int:
    return unit.numa


def _group(unit: Unit) -> int:
    return unit.group


def _itself(value: int) -> int:
    return value


def _blocks(items: Sequence[Item], count: int, n: int, key: Callable[[Item], int]) -> list[list[Item]]:
    slack = len(items) - count * n
    at = 0
    found: list[list[Item]] = []
    for _ in range(count):
        step = next((far for far in range(1, slack + 1) if key(items[at + far]) != key(items[at + far - 1])), 0)
        if step and _touched(items, at + step, n, key) < _touched(items, at, n, key):
            at += step
            slack -= step
        found.append(list(items[at : at + n]))
        at += n
    return found


def _touched(items: Sequence[Item], at: int, n: int, key: Callable[[Item], int]) -> int:
    return len({key(item) for item in items[at : at + n]})
