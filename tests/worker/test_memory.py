"""The memory policy that a training inherits is the kernel's own word."""

from __future__ import annotations

import subprocess

import pytest

from lockstep_slurm.placement import Memory
from lockstep_worker import memory


@pytest.mark.parametrize(("policy", "word"), [("bind", "bind:0"), ("preferred", "prefer:0"), ("local", "default")])
def test_a_policy_is_inherited_and_taken_back(policy: str, word: str) -> None:
    shown = ["head", "-c", "200", "/proc/self/numa_maps"]
    with memory.policy(Memory(policy, () if policy == "local" else (0,))) as failed:
        inside = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    after = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    assert failed is None
    assert inside.split()[1] == word
    assert after.split()[1] == "default"


def test_a_domain_that_there_is_not_is_a_sentence_and_no_failure() -> None:
    with memory.policy(Memory("bind", (63,))) as failed:
        assert failed is not None
        assert "NUMA domain 63 (bind) was planned, but the kernel says" in failed


def test_several_domains_are_preferred_together() -> None:
    with memory.policy(Memory("preferred", (0, 63))) as failed:
        assert failed is None, "the one that there is is taken"


def test_a_machine_whose_system_calls_are_not_known_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with memory.policy(Memory("bind", (0,))) as failed:
        assert failed is not None
        assert "vax" in failed
