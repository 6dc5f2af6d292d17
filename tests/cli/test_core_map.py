"""The core map in a terminal: readable in 80 columns and without a colour, whatever the machine."""

from __future__ import annotations

import io

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from lockstep_slurm.cli import core_map
from lockstep_slurm.placement import (
    Card,
    Communication,
    Core,
    Memory,
    NumaDomain,
    Placement,
    RankPlacement,
    Topology,
)
from lockstep_slurm.placement.picture import Mark, picture
from support.topologies import topologies

GIB = 1 << 30

EPYC = Topology(
    tuple(Core((core, core + 128), core // 64, core // 16, core // 8) for core in range(128)),
    tuple(NumaDomain(number, 64 * GIB) for number in range(8)),
    (Card("ib0", 3), Card("eth0", None)),
    name="epyc",
)
ON_EPYC = Placement(
    tuple(
        RankPlacement(
            rank,
            tuple(range(16 * rank, 16 * rank + 14)),
            Communication(horovod=(16 * rank + 14,), gloo=(16 * rank + 15,)),
            (),
            (rank,),
            Memory("preferred", (rank,)),
        )
        for rank in range(8)
    ),
    spare=tuple(range(128, 256)),
)
XEON = Topology(
    tuple(Core((2 * core + s, 2 * core + s + 56), s, s, s) for s in range(2) for core in range(28)),
    (NumaDomain(0, 64 * GIB), NumaDomain(1, 64 * GIB)),
    (Card("ib0", 1),),
)
ON_XEON = Placement(
    tuple(
        RankPlacement(
            rank,
            tuple(2 * core + rank for core in range(27)),
            Communication(horovod=(54 + rank,), gloo=(110 + rank,)),
            (),
            (rank,),
            Memory("bind", (rank,)),
        )
        for rank in range(2)
    )
)
SMALL = Topology(
    tuple(Core((core,), 0, 0, core // 4) for core in range(12)),
    (NumaDomain(0, 64 * GIB), NumaDomain(1, 16 * GIB)),
    offline=(12, 13),
)
ON_SMALL = Placement((RankPlacement(0, (0, 1, 2), Communication((3,), (3,)), (4,), (0,)),), spare=(5,))


def drawn(topology: Topology, placement: Placement, granted: range | None = None) -> str:
    paper = Console(file=io.StringIO(), width=80, highlight=False)
    paper.print(core_map.headline(topology))
    for line in core_map.lines(picture(topology, placement, granted), 80):
        paper.print(line)
    paper.print(core_map.ranks(placement))
    assert isinstance(paper.file, io.StringIO)
    return "\n".join(line.rstrip() for line in paper.file.getvalue().splitlines())


def test_two_sockets_of_64_cores_with_4_domains_each() -> None:
    assert (
        drawn(EPYC, ON_EPYC)
        == """\
epyc: 2 sockets, 8 NUMA domains, 128 cores, 256 hardware threads
socket 0
  NUMA 0, 64 GiB
    0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c-  0-7 128-135
    0c- 0c- 0c- 0c- 0c- 0c- 0H- 0G-  8-15 136-143
  NUMA 1, 64 GiB
    1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c-  16-23 144-151
    1c- 1c- 1c- 1c- 1c- 1c- 1H- 1G-  24-31 152-159
  NUMA 2, 64 GiB
    2c- 2c- 2c- 2c- 2c- 2c- 2c- 2c-  32-39 160-167
    2c- 2c- 2c- 2c- 2c- 2c- 2H- 2G-  40-47 168-175
  NUMA 3, 64 GiB, ib0
    3c- 3c- 3c- 3c- 3c- 3c- 3c- 3c-  48-55 176-183
    3c- 3c- 3c- 3c- 3c- 3c- 3H- 3G-  56-63 184-191
socket 1
  NUMA 4, 64 GiB
    4c- 4c- 4c- 4c- 4c- 4c- 4c- 4c-  64-71 192-199
    4c- 4c- 4c- 4c- 4c- 4c- 4H- 4G-  72-79 200-207
  NUMA 5, 64 GiB
    5c- 5c- 5c- 5c- 5c- 5c- 5c- 5c-  80-87 208-215
    5c- 5c- 5c- 5c- 5c- 5c- 5H- 5G-  88-95 216-223
  NUMA 6, 64 GiB
    6c- 6c- 6c- 6c- 6c- 6c- 6c- 6c-  96-103 224-231
    6c- 6c- 6c- 6c- 6c- 6c- 6H- 6G-  104-111 232-239
  NUMA 7, 64 GiB
    7c- 7c- 7c- 7c- 7c- 7c- 7c- 7c-  112-119 240-247
    7c- 7c- 7c- 7c- 7c- 7c- 7H- 7G-  120-127 248-255
cards at no domain: eth0
a cell is a core: rank, then c compute, H Horovod's background thread,
   G Gloo's socket thread, - spare
rank  compute  horovod  gloo  NUMA  memory
0     0-13     14       15    0     preferred 0
1     16-29    30       31    1     preferred 1
2     32-45    46       47    2     preferred 2
3     48-61    62       63    3     preferred 3
4     64-77    78       79    4     preferred 4
5     80-93    94       95    5     preferred 5
6     96-109   110      111   6     preferred 6
7     112-125  126      127   7     preferred 7"""
    )


def test_two_sockets_numbered_in_turn() -> None:
    assert (
        drawn(XEON, ON_XEON)
        == """\
2 sockets, 2 NUMA domains, 56 cores, 112 hardware threads
socket 0
  NUMA 0, 64 GiB
    0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c-  0,2..26 56,58..82
    0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0c- 0HG  28,30..54 ...
socket 1
  NUMA 1, 64 GiB, ib0
    1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c-  1,3..27 57,59..83
    1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1c- 1HG  29,31..55 ...
a cell is a core: rank, then c compute, H Horovod's background thread,
   G Gloo's socket thread, - spare
rank  compute                                        horovod  gloo  NUMA  memory
0     0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22,     54       110   0     bind 0
      24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44,
      46, 48, 50, 52
1     1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23,     55       111   1     bind 1
      25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45,
      47, 49, 51, 53"""
    )


def test_one_socket_of_which_a_part_was_granted() -> None:
    assert (
        drawn(SMALL, ON_SMALL, range(6))
        == """\
1 socket, 2 NUMA domains, 12 cores, 12 hardware threads
socket 0
  NUMA 0, 64 GiB
    0c 0c 0c 0+ | 0L -  .  .  | .  .  .  .   0-11
  NUMA 1, 16 GiB, no cores
offline CPUs: 12-13
a cell is a core: rank, then c compute, + several communication threads,
   L loaders, - spare, . not granted
rank  compute  horovod  gloo  loader  NUMA  memory
0     0-2      3        3     4       0     local"""
    )


def test_ranks_have_colours_and_communication_stands_out_but_the_text_is_the_same_without() -> None:
    paper = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", highlight=False)
    row = list(core_map.lines(picture(XEON, ON_XEON), 80))[3]
    styles = {row.plain[span.start : span.end]: str(span.style) for span in row.spans}
    assert styles["0H"] == "reverse cyan"
    assert styles["0c"] == "cyan"
    paper.print(row)
    assert isinstance(paper.file, io.StringIO)
    assert "\x1b[7;36m" in paper.file.getvalue()


def test_a_cell_says_the_rank_once_unless_two_ranks_share_a_core() -> None:
    core = Topology((Core((0, 1), 0, 0, 0),), (NumaDomain(0, GIB),))

    def cell(*ranks: RankPlacement) -> str:
        return picture(core, Placement(ranks)).sockets[0].domains[0].groups[0].cells[0].text

    assert cell(RankPlacement(0, (0,), Communication((1,)))) == "0cH"
    assert cell(RankPlacement(0, (0,)), RankPlacement(1, (1,))) == "0c1c"
    assert cell(RankPlacement(0, (0,)), RankPlacement(1, (0,))) == "0,1c-"
    assert cell(RankPlacement(0, (1,))) == "-0c"
    assert cell(RankPlacement(0, (0,), Communication((0,)))) == "0*-"


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=25)
@given(topology=topologies(max_cpus=48), data=st.data())
def test_every_hardware_thread_of_any_machine_is_drawn_once(topology: Topology, data: st.DataObject) -> None:
    granted = data.draw(st.sets(st.sampled_from(topology.cpus), min_size=1))
    compute = tuple(sorted(granted))[: max(len(granted) // 2, 1)]
    drawing = picture(topology, Placement((RankPlacement(0, compute),)), granted)
    marks = [
        mark
        for socket in drawing.sockets
        for domain in socket.domains
        for group in domain.groups
        for cell in group.cells
        for mark in cell.marks
    ]
    assert [mark.cpu for mark in marks] == list(topology.cpus), "in the tree's order"
    for mark in marks:
        expected = "c" if mark.cpu in compute else "-" if mark.cpu in granted else "."
        assert mark == Mark(mark.cpu, expected, (0,) if mark.cpu in compute else ())
    assert all(len(line) <= 80 for line in core_map.lines(drawing, 80))
