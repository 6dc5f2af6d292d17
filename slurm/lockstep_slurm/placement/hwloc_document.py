"""hwloc's XML as it stands: its objects in the document's order, its distances, and what is not hwloc's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from lockstep_slurm.placement.cpulist import MOST
from lockstep_slurm.placement.errors import TopologyError

EXPORT = "export the machine with `lstopo machine.xml`"
_PARTS = {
    "Package": "socket",
    "Socket": "socket",  # hwloc before 1.11
    "Core": "core",
    "L1Cache": "l1",
    "L2Cache": "l2",
    "L3Cache": "l3",
}
_INSTRUCTIONS = "2"
"""hwloc_obj_cache_type_e: a cache that only holds instructions says nothing of who shares data."""


class Object:
    """One ``<object>``. What it is under comes from its parent, which is always earlier in the document."""

    __slots__ = ("index", "kind", "level", "line", "parent", "parts", "values")

    def __init__(self, values: Mapping[str, str], parent: Object | None, line: int) -> None:
        self.values = values
        self.parent = parent
        self.line = line
        self.level: int = parent.level + 1 if parent else 0
        self.kind = values.get("type", "")
        if self.kind == "Cache":
            cache = values.get("cache_type") != _INSTRUCTIONS
            self.kind = f"L{values.get('depth', '')}Cache" if cache else "L1iCache"
        elif self.kind == "Proc":  # hwloc 0.9
            self.kind = "PU"
        self.parts: dict[str, Object] = parent.parts if parent else {}
        part = _PARTS.get(self.kind)
        if part:
            self.parts = {**self.parts, part: self}
        numbered = self.kind in ("PU", "NUMANode")
        self.index = self.number("os_index") if numbered else -1

    @property
    def where(self) -> str:
        """For people: what it is, and its line in the document."""
        return f"the {self.kind or 'object without a type'} in line {self.line}"

    def number(self, name: str) -> int:
        """The attribute as a number of a CPU or a domain."""
        value = self.values.get(name)
        if value is None or not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) >= MOST:
            said = "is missing" if value is None else f'"{value[:40]}" is not a number from 0 to {MOST - 1}'
            raise TopologyError(f"{self.where}: {name} {said}")
        return int(value)

    def members(self, name: str) -> set[int] | None:
        """The attribute as a set of numbers; None where it is missing or without an end (``0xf...f``)."""
        value = self.values.get(name)
        if value is None or "f...f" in value:
            return None
        words = value.split(",")
        if len(words) * 32 > MOST:
            raise TopologyError(f"{self.where}: {name} holds numbers above {MOST - 1}")
        bits = 0
        for word in words:
            try:
                bits = bits << 32 | (int(word, 16) if word else 0)
            except ValueError as error:
                raise TopologyError(f'{self.where}: {name} "{value[:40]}" is not a set of hexadecimal words') from error
        if bits < 0 or bits.bit_length() > MOST:
            raise TopologyError(f'{self.where}: {name} "{value[:40]}" is not a set of numbers from 0 to {MOST - 1}')
        return {number for number, bit in enumerate(reversed(f"{bits:b}")) if bit == "1"}

    def above(self) -> Iterator[Object]:
        """What it is under, the nearest first."""
        parent = self.parent
        while parent:
            yield parent
            parent = parent.parent


class Document:
    """The XML, read in one pass without a tree in memory."""

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.host = ""
        self.version = 1
        self.matrices: list[Matrix] = []
        self._open: list[Object] = []
        self._root = ""
        self._text: list[str] | None = None
        self._line: Callable[[], int] = lambda: 0

    def read(self, text: str) -> None:
        """Raises ``TopologyError`` for what is not XML, is not hwloc's, or declares entities."""
        # Ranks load this module at their start and never read XML; some of their Pythons come without expat.
        from xml.parsers import expat

        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.EntityDeclHandler = self._entity
        self._line = lambda: parser.CurrentLineNumber
        try:
            parser.Parse(text, True)  # noqa: FBT003 - expat's own way to say that this is all
        except expat.ExpatError as error:
            raise TopologyError(f"this is not XML: {error}; {EXPORT}") from error
        except UnicodeEncodeError as error:
            raise TopologyError(f"this is not XML: {error.reason} at character {error.start}; {EXPORT}") from error

    def machine(self) -> Object:
        """The one machine; an export of several, or of something else, is refused."""
        machines = [one for one in self.objects if one.kind == "Machine"]
        if len(machines) > 1:
            raise TopologyError(
                f"this describes {len(machines)} machines (the second: {machines[1].where}); export each by itself"
            )
        if not any(one.kind == "PU" for one in self.objects):
            raise TopologyError(f"there is no PU (hardware thread) among the {len(self.objects)} objects; {EXPORT}")
        return machines[0] if machines else self.objects[0]

    def _start(self, tag: str, values: dict[str, str]) -> None:
        if not self._root:
            self._begin(tag, values)
        elif tag == "object":
            one = Object(values, self._open[-1] if self._open else None, self._line())
            self._open.append(one)
            self.objects.append(one)
        elif tag == "info":
            if values.get("name") == "HostName" and len(self._open) <= 1:
                self.host = values.get("value", "")
        elif tag in ("distances", "distances2"):
            self.matrices.append(Matrix(values, self._open[-1] if self._open else None))
        elif tag == "latency" and self.matrices:
            self.matrices[-1].values.append(values.get("value", ""))
        elif tag in ("indexes", "u64values"):
            self._text = []

    def _begin(self, tag: str, values: Mapping[str, str]) -> None:
        self._root = tag
        if tag == "topologydiff":
            raise TopologyError(f"this is the difference between two machines (hwloc-diff), not a machine; {EXPORT}")
        if tag not in ("topology", "root"):
            raise TopologyError(f"this is XML, but not hwloc's: it starts with <{tag[:40]}>, not <topology>; {EXPORT}")
        version = values.get("version", "1.0")
        major = version.split(".")[0]
        if major not in ("1", "2", "3"):
            raise TopologyError(
                f'version "{version[:40]}" of hwloc\'s XML is not known (1 to 3 are); export the machine with hwloc 3'
            )
        self.version = int(major)

    def _end(self, tag: str) -> None:
        if tag == "object":
            self._open.pop()
        elif self._text is not None:
            matrix = self.matrices[-1] if self.matrices else None
            if matrix and tag == "indexes":
                matrix.indexes += "".join(self._text).split()
            elif matrix and tag == "u64values":
                matrix.values += "".join(self._text).split()
            self._text = None

    def _characters(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def _entity(self, name: str, *_: object) -> None:
        raise TopologyError(f'this declares the entity "{name[:40]}"; hwloc\'s XML has none, and none is expanded')


class Matrix:
    """``<distances>`` of hwloc 1 (relative latencies) or ``<distances2>`` of hwloc 2 and 3."""

    def __init__(self, header: Mapping[str, str], parent: Object | None) -> None:
        self.header = header
        self.parent = parent
        self.indexes: list[str] = []
        self.values: list[str] = []

    def between(self, domains: Sequence[Object]) -> dict[int, tuple[int, ...]] | None:
        """The distances between all of ``domains`` by number, None where this is about something else."""
        try:
            order, scale = self._order(domains), float(self.header.get("latency_base", "1"))
            figures = [round(float(value) * scale) for value in self.values]
        except (ValueError, OverflowError):
            return None
        numbers = sorted(domain.index for domain in domains)
        if sorted(order) != numbers or len(figures) != len(order) ** 2:
            return None
        row = {number: at * len(order) for at, number in enumerate(order)}
        column = {number: at for at, number in enumerate(order)}
        return {one: tuple(figures[row[one] + column[other]] for other in numbers) for one in numbers}

    def _order(self, domains: Sequence[Object]) -> list[int]:
        if "relative_depth" in self.header:
            level = (self.parent.level if self.parent else 0) + int(self.header["relative_depth"])
            return [domain.index for domain in domains if domain.level == level]
        latency = int(self.header.get("kind", "0")) & 4  # HWLOC_DISTANCES_KIND_MEANS_LATENCY
        if self.header.get("type") != "NUMANode" or self.header.get("indexing") != "os" or not latency:
            return []
        return [int(index) for index in self.indexes]
