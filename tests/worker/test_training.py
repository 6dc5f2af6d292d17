"""Real Horovod ranks: equal parameters, the mathematics of one rank whoever exchanges."""

from __future__ import annotations

import json
import math
import signal
from typing import Any

import pytest
import torch

from lockstep_slurm.job.rundir import STOPPED, read_exit
from lockstep_worker import models
from lockstep_worker.checkpoint.folder import names
from lockstep_worker.data.digits import Digits
from lockstep_worker.errors import MeetingError
from support.ranks import processes_of
from support.trainings import MLP, Launch, MakeRun, digests, mean_losses, wait_for


def losses_of_a_plain_loop(threads: int) -> list[float]:
    """What the recipe of ``MLP`` is, without Horovod and without anything of the recipe but its model and its data."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # as the rank has: a sum divided otherwise is rounded otherwise
    torch.manual_seed(3)
    model, digits = models.build("digits-mlp"), Digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.001)
    losses: list[float] = []
    for epoch in range(2):
        order = torch.randperm(1437, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch))
        for indices in order[: 22 * 64].view(22, 64):
            images, classes = digits.train_batch(indices)
            optimizer.param_groups[0]["lr"] = 0.05 * min(1.0, (len(losses) + 1) / 5)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images), classes)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    torch.set_num_threads(before)
    return losses


def test_two_ranks_compute_what_one_rank_with_twice_the_batch_computes(make_run: MakeRun, launch: Launch) -> None:
    # A rank alone has nothing to exchange, so it needs no group for it either.
    one = launch(make_run({"communication": {"transport": "gloo"}}, **MLP, epochs=2, batch_size=64), 1)
    # The same rate, said otherwise: for a global batch of 16, which is a quarter of this job's.
    scaled = MLP | {"learning_rate": 0.0125, "base_batch": 16}
    two = launch(make_run(**scaled, epochs=2, batch_size=32), 2)
    assert one.wait() == 0, one.text
    assert two.wait() == 0, two.text
    alone, shared = mean_losses(one), mean_losses(two)
    assert len(alone) == len(shared) == 44
    assert shared == pytest.approx(alone, rel=1e-4)
    assert alone[-1] < alone[0] / 2, "it learns, so that equal losses say something"
    assert [verdict["values"]["result"] for verdict in one.records("verdict")] == ["as planned"] * 2
    (start,) = one.records("start")
    assert alone == losses_of_a_plain_loop(len(start["values"]["compute_cpus"])), "not what it was, bit for bit"
    last_alone, last_shared = (found.records("evaluation")[-1]["values"] for found in (one, two))
    assert last_shared["loss"] == pytest.approx(last_alone["loss"], rel=1e-4)
    assert last_shared["accuracy"] == pytest.approx(last_alone["accuracy"], abs=1 / 360)


def test_every_exchange_trains_the_same_model_bit_for_bit(make_run: MakeRun, launch: Launch) -> None:
    """And each record tells where its step's time went, as far as that exchange lets it be known."""
    told = {"data_s", "forward_s", "backward_s", "optimizer_s", "exposed_s"}
    seen = []
    for communication in (
        {"exchange": "horovod"},
        {"exchange": "lockstep", "defer": False},
        {},
        {"transport": "gloo"},
        {"transport": "horovod"},
    ):
        launched = launch(make_run({"communication": communication}, **MLP, epochs=2, batch_size=32), 2)
        assert launched.wait() == 0, launched.text
        assert "not completed" not in launched.text, "it ends in order"
        evaluations = [one["values"] for one in launched.records("evaluation")]
        seen.append((digests(launched), mean_losses(launched), evaluations))
        verdicts = [(one["values"]["when"], one["values"]["result"]) for one in launched.records("verdict")]
        # What starts threads that communicate is looked at: Horovod, and torch's own group before it.
        transport = communication.get("transport", "tcp")
        looks = 4 if transport == "gloo" else 2
        assert sorted(verdicts) == [("init", "as planned")] * looks + [("steps", "as planned")] * 2
        roles = {thread["role"] for one in launched.records("verdict") for thread in roles_of(one)}
        assert ("exchange" in roles) == (communication.get("exchange") != "horovod")
        assert {"horovod", "gloo"} < roles
        assert "unclassified" not in roles
        carriers = {one["values"]["transport"] for one in launched.records("tuning")}
        assert carriers == ({transport} if "exchange" in roles else set())
        steps = [one["values"] for one in launched.records("step")]
        for values in steps:
            parts = [values[name] for name in told]
            assert min(parts) >= 0
            assert sum(parts) <= values["seconds"] * 1.001 + 1e-6
            assert values.get("waiting_s", 0.0) <= values["exposed_s"]
        ours = {"communication_s", "waiting_s", "gradient_bytes"}
        assert (
            told | ours <= set(steps[-1]) if communication.get("exchange") != "horovod" else not ours & set(steps[-1])
        )
        (isolation,) = launched.records("isolation")
        assert isolation["rank"] == 0
        assert isolation["values"]["bytes_per_s"] > 0
        assert len(isolation["values"]["piece_bytes"]) == len(isolation["values"]["seconds_per_piece"]) == 1
    assert seen == [seen[0]] * 5


def roles_of(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """The threads of a verdict's record."""
    threads: list[dict[str, Any]] = json.loads(verdict["values"]["document"])["threads"]
    return threads


def test_told_to_stop_over_gloo_it_saves_and_ends(make_run: MakeRun, launch: Launch) -> None:
    run = make_run({"communication": {"transport": "gloo"}, "checkpoint": {}}, **MLP, epochs=400, batch_size=32)
    launched = launch(run, 2)
    wait_for(lambda: any(one["step"] >= 10 for one in launched.records("step")), 120, "it makes no steps")
    launched.process.send_signal(signal.SIGUSR1)
    assert launched.wait() == STOPPED, launched.text
    assert processes_of(run) == []
    assert names(run / "checkpoints")[0].step == max(one["step"] for one in launched.records("step"))


def test_ranks_that_cannot_be_reached_over_tcp_take_horovod_unless_tcp_was_asked_for(
    make_run: MakeRun, launch: Launch
) -> None:
    run = make_run({"environment": {"variables": {"GLOO_SOCKET_IFNAME": "nowhere0"}}}, **MLP)
    launched = launch(run, 2)
    assert launched.wait() == 0, launched.text
    said = "rank 0 cannot exchange over TCP: this host has no interface 'nowhere0'"
    assert launched.text.count(said) == 1
    assert {one["values"]["transport"] for one in launched.records("tuning")} == {"horovod"}


def test_ranks_that_cannot_be_reached_over_tcp_end_with_what_to_do(make_run: MakeRun, launch: Launch) -> None:
    variables = {"GLOO_SOCKET_IFNAME": "nowhere0"}
    run = make_run({"communication": {"transport": "tcp"}, "environment": {"variables": variables}}, **MLP)
    launched = launch(run, 2)
    assert launched.wait() == MeetingError.code, launched.text
    ended = read_exit(run, 1)
    assert ended is not None
    assert ended.message is not None
    for words in ("rank 0 cannot exchange over TCP", "'nowhere0'", "leave communication.transport out"):
        assert words in ended.message
    assert "Traceback" not in launched.text
    assert processes_of(run) == []


def test_a_gpt_learns_texts_by_lamb_on_two_ranks(make_run: MakeRun, launch: Launch) -> None:
    sizes = {"vocabulary": 16, "context": 12, "layers": 1, "heads": 2, "width": 16, "tied": True}
    launched = launch(
        make_run(model="gpt", data="synthetic-tokens", gpt=sizes, optimizer="lamb", learning_rate=0.02, base_batch=8,
                 weight_decay=0.01, warmup_steps=5, steps_per_epoch=60, batch_size=8),
        2,
    )  # fmt: skip
    assert launched.wait() == 0, launched.text
    losses = mean_losses(launched)
    assert losses[0] == pytest.approx(math.log(16), rel=0.1)
    assert losses[-1] < losses[0] / 2
    (evaluation,) = launched.records("evaluation")
    assert evaluation["values"]["accuracy"] > 0.8
    assert evaluation["values"]["samples"] == 16
    assert len(digests(launched)) == 1
