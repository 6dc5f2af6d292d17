"""Which client is chosen where."""

from __future__ import annotations

from pathlib import Path

import pytest

import lockstep_slurm.client
from lockstep_slurm.client import CommandClient, LocalClient, pyslurm_presence, select, selection
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


@pytest.mark.usefixtures("no_usual_conf", "no_pyslurm")
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
    @pytest.mark.parametrize("kind", ["command", "pyslurm"])
    def test_without_sbatch_it_says_what_to_do(self, tmp_path: Path, kind: selection.Kind) -> None:
        with pytest.raises(SlurmError, match="install"):
            select(kind, slurm_conf=None, home=tmp_path)

    @pytest.mark.usefixtures("sbatch")
    def test_local_is_local_even_beside_a_slurm(self, tmp_path: Path) -> None:
        client = select("local", slurm_conf=tmp_path / "slurm.conf", home=tmp_path)
        client.ping()
        assert (tmp_path / "local" / "lock").exists()

    def test_what_does_not_exist_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SlurmError, match="slurmrestd"):
            select("slurmrestd", slurm_conf=None, home=tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def no_pyslurm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without pyslurm, whatever this one has."""
    monkeypatch.setattr(pyslurm_presence, "find_spec", lambda _: None)


@pytest.fixture
def pyslurm_for_25_11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyslurm that says it is for Slurm 25.11, and can do nothing."""
    (tmp_path / "site" / "pyslurm").mkdir(parents=True)
    (tmp_path / "site" / "pyslurm" / "__init__.py").write_text(
        "__version__ = '25.11.2'\nclass PyslurmError(Exception): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("no_usual_conf", "sbatch")
class TestSelectPySlurm:
    @pytest.fixture
    def conf(self, tmp_path: Path) -> Path:
        (tmp_path / "slurm.conf").touch()
        return tmp_path / "slurm.conf"

    @staticmethod
    def _slurm_is(version: str, tmp_path: Path) -> None:
        (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/sh\necho slurm {version}\n")

    @pytest.mark.usefixtures("pyslurm_for_25_11")
    @pytest.mark.parametrize("kind", ["auto", "pyslurm"])
    def test_it_is_chosen_where_it_fits(self, tmp_path: Path, conf: Path, kind: selection.Kind) -> None:
        self._slurm_is("25.11.7", tmp_path)
        assert select(kind, slurm_conf=conf, home=tmp_path).kind == "pyslurm"

    @pytest.mark.usefixtures("pyslurm_for_25_11")
    def test_where_it_does_not_fit_auto_takes_the_commands_and_says_why(
        self, tmp_path: Path, conf: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self._slurm_is("22.05.8", tmp_path)
        assert select("auto", slurm_conf=conf, home=tmp_path).kind == "command"
        assert "pyslurm 25.11.2 is for Slurm 25.11 only" in caplog.text
        with pytest.raises(SlurmError, match=r"Slurm here is 22\.05\.8"):
            select("pyslurm", slurm_conf=conf, home=tmp_path)

    @pytest.mark.usefixtures("pyslurm_for_25_11")
    def test_where_slurm_is_not_known_auto_takes_the_commands_and_who_asked_for_pyslurm_gets_it(
        self, tmp_path: Path, conf: Path
    ) -> None:
        assert select("auto", slurm_conf=conf, home=tmp_path).kind == "command"
        assert select("pyslurm", slurm_conf=conf, home=tmp_path).kind == "pyslurm"

    @pytest.mark.usefixtures("no_pyslurm")
    def test_where_there_is_none_it_says_what_to_install(
        self, tmp_path: Path, conf: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self._slurm_is("25.11.7", tmp_path)
        with pytest.raises(SlurmError, match=r"pip install '\.\[pyslurm\]' in a clone of Lockstep"):
            select("pyslurm", slurm_conf=conf, home=tmp_path)
        assert select("auto", slurm_conf=conf, home=tmp_path).kind == "command"
        assert caplog.text == ""


def test_the_package_has_the_clients_and_nothing_it_does_not_have() -> None:
    assert lockstep_slurm.client.LocalClient is LocalClient
    assert lockstep_slurm.client.PySlurmClient.kind == "pyslurm"
    with pytest.raises(AttributeError, match="RestClient"):
        _ = lockstep_slurm.client.RestClient
