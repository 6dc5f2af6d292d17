"""Which client is chosen where."""

from __future__ import annotations

from pathlib import Path

import pytest

import lockstep_slurm.client
from lockstep_slurm.client import CommandClient, LocalClient, select, selection
from lockstep_slurm.client.protocol import SlurmError


@pytest.fixture
def no_usual_conf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No slurm.conf where Slurm looks by itself, whatever this machine has."""
    monkeypatch.setattr(selection, "_USUAL", ())
    monkeypatch.delenv("SLURM_CONF", raising=False)


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch on PATH, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text("#!/bin/sh\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.fixture
def no_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_usual_conf")
class TestSelect:
    @pytest.mark.usefixtures("sbatch")
    def test_auto_is_slurm_where_its_configuration_is_known(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert isinstance(select("auto", slurm_conf=tmp_path / "slurm.conf", home=tmp_path), CommandClient)
        monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
        assert isinstance(select("auto", slurm_conf=None, home=tmp_path), CommandClient)
        monkeypatch.delenv("SLURM_CONF")
        monkeypatch.setattr(selection, "_USUAL", (str(tmp_path / "usual.conf"),))
        assert isinstance(select("auto", slurm_conf=None, home=tmp_path), LocalClient)
        (tmp_path / "usual.conf").touch()
        assert isinstance(select("auto", slurm_conf=None, home=tmp_path), CommandClient)

    @pytest.mark.usefixtures("no_sbatch")
    def test_auto_is_this_machine_where_there_is_no_sbatch(self, tmp_path: Path) -> None:
        client = select("auto", slurm_conf=tmp_path / "slurm.conf", home=tmp_path)
        assert client.kind == "local"

    @pytest.mark.usefixtures("no_sbatch")
    def test_command_without_sbatch_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(SlurmError, match="install"):
            select("command", slurm_conf=None, home=tmp_path)

    @pytest.mark.usefixtures("sbatch")
    def test_local_is_local_even_beside_a_slurm(self, tmp_path: Path) -> None:
        client = select("local", slurm_conf=tmp_path / "slurm.conf", home=tmp_path)
        client.ping()
        assert (tmp_path / "local" / "lock").exists()

    @pytest.mark.parametrize(("kind", "word"), [("pyslurm", "command"), ("slurmrestd", "slurmrestd")])
    def test_what_cannot_be_had_is_an_error(self, tmp_path: Path, kind: str, word: str) -> None:
        with pytest.raises(SlurmError, match=word):
            select(kind, slurm_conf=None, home=tmp_path)  # type: ignore[arg-type]


def test_the_package_has_the_clients_and_nothing_it_does_not_have() -> None:
    assert lockstep_slurm.client.LocalClient is LocalClient
    with pytest.raises(AttributeError, match="PySlurmClient"):
        _ = lockstep_slurm.client.PySlurmClient
