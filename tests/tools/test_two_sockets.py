"""The emulated machine's parts: where it can be made, its archive, the order of its modules, what QEMU is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import second_slurm
import two_sockets


def a_module(folder: Path, name: str, *depends: str) -> Path:
    """A file with the words that a kernel module carries about itself."""
    file = folder / f"{name}.ko"
    file.write_bytes(b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=" + name.encode())
    return file


class TestModules:
    def test_each_comes_after_what_it_needs(self, tmp_path: Path) -> None:
        modules = {
            "virtiofs": a_module(tmp_path, "virtiofs", "fuse", "virtio-ring"),
            "fuse": a_module(tmp_path, "fuse"),
            "virtio_ring": a_module(tmp_path, "virtio_ring"),
            "overlay": a_module(tmp_path, "overlay"),
        }
        assert two_sockets.needed(("virtiofs", "fuse"), modules) == ["fuse", "virtio_ring", "virtiofs"]

    def test_one_that_the_kernel_does_not_have_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            two_sockets.needed(("virtiofs",), {"virtiofs": a_module(tmp_path, "virtiofs", "fuse")})
        assert "has no module fuse" in capsys.readouterr().err


def test_the_archive_has_headers_and_content_on_borders_of_four_bytes() -> None:
    archive = two_sockets.archive([("bin", 0o40755, b""), ("bin/sh", 0o100755, b"12345")])
    assert len(archive) % 4 == 0
    at, found = 0, []
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length - 1].decode()
        content = at + 110 + length + -(110 + length) % 4
        found.append((name, mode, archive[content : content + size]))
        at = content + size + -size % 4
    assert found == [("bin", 0o40755, b""), ("bin/sh", 0o100755, b"12345"), ("TRAILER!!!", 0, b"")]


@pytest.mark.parametrize("shape", [two_sockets.WITH_SMT, two_sockets.WITHOUT_SMT])
def test_both_shapes_have_8_cpus_on_2_domains_and_a_card_at_the_second(shape: two_sockets.Shape) -> None:
    line = " ".join(two_sockets.arguments(shape, Path("/there"), console="null,id=console"))
    assert shape.cpus == 8
    assert f"-smp 8,sockets=2,cores={shape.cores},threads={shape.threads}" in line
    assert "nodeid=0,cpus=0-3" in line
    assert "nodeid=1,cpus=4-7" in line
    assert "pxb-pcie,id=far,bus=pcie.0,bus_nr=128,numa_node=1" in line


def test_all_cpus_in_one_thread_are_the_same_machine() -> None:
    many, one = (
        two_sockets.arguments(two_sockets.WITH_SMT, Path("/there"), console="null,id=console", one_thread=alone)
        for alone in (False, True)
    )
    assert [(was, now) for was, now in zip(many, one, strict=True) if was != now] == [
        ("tcg,thread=multi", "tcg,thread=single")
    ]


def test_what_decides_the_kernel_decides_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_CACHE", str(tmp_path))
    before = two_sockets.home()
    monkeypatch.setattr(two_sockets, "MODULES", ("virtiofs",))
    assert two_sockets.home().parent == before.parent == tmp_path / "machine"
    assert two_sockets.home() != before


def test_where_the_second_slurm_cannot_be_the_machine_cannot_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_slurm, "why_not", lambda: "this is another system")
    assert (
        two_sockets.why_not() == "an emulated two-socket machine runs the tests' second Slurm. this is another system"
    )
    monkeypatch.setattr(second_slurm, "why_not", lambda: None)
    assert two_sockets.why_not() is None
