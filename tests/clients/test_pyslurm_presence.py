"""Whether pyslurm is there, loads, and is of this Slurm's release: said with the cure where it is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clients.stand_in import STAND_IN, StandIn
from lockstep_slurm.client import pyslurm_presence
from lockstep_slurm.client.protocol import SlurmUnavailableError


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An sbatch that says it is of the release in the file beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f"#!/bin/sh\nread -r said < {folder}/version && echo $said\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}")
    return folder / "version"


@pytest.fixture(autouse=True)
def _on_the_path(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(stand_in.folder))


def test_it_is_found_where_this_process_would_import_it_from(stand_in: StandIn) -> None:
    assert pyslurm_presence.folder() == stand_in.folder
    assert "pyslurm" not in sys.modules


@pytest.mark.parametrize("said", ["slurm 25.11.7", "slurm-wlm 25.11.0"])
def test_it_fits_the_slurm_of_its_release(stand_in: StandIn, sbatch: Path, said: str) -> None:
    sbatch.write_text(f"{said}\n")
    assert pyslurm_presence.why_not(stand_in.conf) is None


def test_a_zero_that_slurm_writes_and_pyslurm_does_not_is_no_difference(stand_in: StandIn, sbatch: Path) -> None:
    sbatch.write_text("slurm-wlm 22.05.8\n")
    (stand_in.folder / "pyslurm" / "__init__.py").write_text(STAND_IN.replace("25.11.2", "22.5.3"))
    assert pyslurm_presence.why_not(stand_in.conf) is None


@pytest.mark.parametrize("said", ["slurm-wlm 22.05.8", "slurm 25.05.1", "slurm 26.11.0"])
def test_it_does_not_fit_another(stand_in: StandIn, sbatch: Path, said: str) -> None:
    sbatch.write_text(f"{said}\n")
    reason = pyslurm_presence.why_not(stand_in.conf)
    assert reason is not None
    assert "pyslurm 25.11.2 is for Slurm 25.11 only" in reason
    assert said.split()[1] in reason
    assert "'command'" in reason


def test_one_that_does_not_load_says_so_with_the_cure(stand_in: StandIn, sbatch: Path) -> None:
    sbatch.write_text("slurm 25.11.7\n")
    (stand_in.folder / "pyslurm" / "__init__.py").write_text("import there_is_no_such_module")
    reason = pyslurm_presence.why_not(stand_in.conf)
    assert reason is not None
    assert "there_is_no_such_module" in reason
    assert "pip install '.[pyslurm]' in a clone of Lockstep" in reason


def test_an_unknown_slurm_is_not_a_misfit(stand_in: StandIn, sbatch: Path) -> None:
    sbatch.write_text("command not found\n")
    with pytest.raises(SlurmUnavailableError, match="version is not known"):
        pyslurm_presence.why_not(stand_in.conf)
