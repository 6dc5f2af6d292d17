"""What a spec asks of a node is what its placement and communication sections say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.placement import Request, Threads, request_of

TRAINING = {"training": {"model": "digits-cnn", "data": "digits"}}
SCRIPT = {"training": {"script": "/home/me/train.py"}}


def request_for(training: Any = SCRIPT, **sections: Any) -> Request:
    return request_of(JobSpec.model_validate(training | sections).model_dump(), ranks=4)


def test_a_spec_that_says_nothing_asks_for_what_a_request_asks_for_by_default() -> None:
    assert request_for() == Request(ranks=4)
    # A run directory that an older Lockstep has made has not all of today's keys.
    assert request_of({}, ranks=4) == Request(ranks=4)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"communication_cpus": 0}, {"communication_cpus": 0}),
        ({"communication_cpus": 3}, {"communication_cpus": 3}),
        ({"policy": "nic"}, {"policy": "nic"}),
        ({"loader_cpus": 2}, {"loader_cpus": 2}),
        ({"smt": True}, {"smt": True}),
        ({"memory": "bind"}, {"memory": "bind"}),
        ({"on_shortage": "degrade"}, {"degrade": True}),
        ({"cpus_per_rank": 8}, {"cpus_per_rank": 8}),
    ],
)
def test_every_key_of_placement_has_its_place_in_the_request(said: dict[str, Any], asked: dict[str, Any]) -> None:
    assert request_for(placement=said) == replace(Request(ranks=4), **asked)


@pytest.mark.parametrize(
    ("said", "threads"),
    [
        ({"backend": "gloo"}, Threads(horovod=1, gloo=1)),
        ({"backend": "mpi"}, Threads(horovod=1, gloo=0)),
        ({"backend": "ccl"}, Threads(horovod=1, gloo=1, ccl=1)),
        ({"backend": "ccl", "ccl_workers": 3}, Threads(horovod=1, gloo=1, ccl=3)),
    ],
)
def test_the_threads_follow_from_the_backend(said: dict[str, Any], threads: Threads) -> None:
    assert request_for(communication=said).threads == threads


@pytest.mark.parametrize("backend", ["gloo", "mpi", "ccl"])
def test_a_recipe_over_gloo_has_gloos_threads_whatever_carries_horovod(backend: str) -> None:
    assert request_for(TRAINING, communication={"backend": backend, "transport": "gloo"}).threads.gloo == 1


@pytest.mark.parametrize("backend", ["gloo", "mpi", "ccl"])
def test_a_recipe_over_tcp_has_no_thread_beside_the_exchanges(backend: str) -> None:
    over_tcp, without = (
        request_for(TRAINING, communication={"backend": backend, **said}).threads for said in ({"transport": "tcp"}, {})
    )
    assert over_tcp == without
    assert over_tcp.exchange == 1


@pytest.mark.parametrize("backend", ["gloo", "mpi", "ccl"])
def test_a_rank_has_an_exchange_thread_where_lockstep_exchanges_its_gradients(backend: str) -> None:
    def threads(training: Any, **said: Any) -> int:
        return request_for(training, communication={"backend": backend, **said}).threads.exchange

    assert threads(TRAINING) == 1
    assert threads(TRAINING, exchange="lockstep", defer=False) == 1
    assert threads(TRAINING, exchange="horovod") == 0
    assert threads(SCRIPT) == 0
    assert threads(SCRIPT, exchange="lockstep") == 1


def test_the_card_is_the_one_that_the_ranks_use() -> None:
    spec = JobSpec.model_validate(TRAINING | {"communication": {"interface": "ib0"}}).model_dump()
    assert request_of(spec, ranks=1).card == "ib0"
    assert request_of(spec, ranks=1, card="ib1").card == "ib1"


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="'nccl', which is none of gloo, mpi and ccl"):
        request_of({"communication": {"backend": "nccl"}}, ranks=1)
