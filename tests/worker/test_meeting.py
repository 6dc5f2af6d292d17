"""Ranks meet on the network that was chosen, on ports of the range, whatever somebody else does meanwhile."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lockstep_slurm.job.rundir import read_exit
from support.namespaces import Machine, cabled
from support.ranks import Launched, base_environment, processes_of, task

MakeRun = Callable[..., Path]
Launch = Callable[..., Launched]

MLP = {"model": "digits-mlp", "data": "digits", "batch_size": 64, "epochs": 2, "seed": 3}
DDP = """
import json, os, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    model(torch.randn(16, 8)).square().mean().backward()
    optimizer.step()
weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
gathered = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
dist.all_gather(gathered, weights)
assert all(torch.equal(weights, other) for other in gathered)
assert "horovod" not in sys.modules
names = ("MASTER_ADDR", "MASTER_PORT", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
print("met " + json.dumps({name: os.environ[name] for name in names}), flush=True)
dist.destroy_process_group()
# torch 2.13 itself, without any of ours, now and then aborts while a rank with one CPU unloads it.
os._exit(0)
"""
ATTACK = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert os.geteuid() == 65534
port, right = int(sys.argv[1]), sys.argv[2]
wrong = "0" * 32
told = {}
def ask(who, method, path):
    body = b"\\x02\\x00" + b"x" * 134 if method == "PUT" else b""
    with socket.socket() as s:
        s.settimeout(5)
        s.bind((who, 0))
        try:
            s.connect(("127.0.0.1", port))
            head = b"%s %s HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n" % (method.encode(), path.encode(), len(body))
            s.sendall(head + body)
            answer = s.recv(4096).split(b"\\r\\n")[0].decode()
        except ConnectionRefusedError:
            return False
        except OSError:
            answer = "hung up"
    told[answer] = told.get(answer, 0) + 1
    return True
there = True
while there and not os.path.exists(sys.argv[3]):
    for key in ("global/0", "global/1", "local_node1/0", "cross_0/1", "lockstep/0", "lockstep/finding"):
        for method in ("PUT", "DELETE", "GET"):
            there = (ask("127.0.0.1", method, "/" + key)
                     and ask("127.0.0.1", method, f"/{wrong}:{port}/{key}")
                     and ask("127.0.0.1", method, f"/{wrong}{port}/../{key}")
                     and ask("127.0.0.9", method, f"/{right}:{port}/{key}"))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines, as far as the network goes."""
    with cabled() as made:
        yield made


def on(launch: Launch, machines: tuple[Machine, Machine], run: Path, *options: str) -> list[Launched]:
    """One rank on each machine."""
    return [launch(run, None, task(rank), *options, prefix=machine.prefix) for rank, machine in enumerate(machines)]


def met(rank: Launched) -> dict[str, str]:
    """What a rank of the DDP script printed."""
    (line,) = [line for line in rank.text.splitlines() if "met {" in line]
    found: dict[str, str] = json.loads(line.partition("met ")[2])
    return found


def published(run: Path) -> dict[str, Any]:
    """The rendezvous file, waited for."""
    path, ends = run / "rendezvous" / "1.json", time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def digests(launched: Launched) -> set[str]:
    return {record["values"]["parameters_sha256"] for record in launched.records("end")}


@pytest.fixture
def ddp(tmp_path: Path) -> Path:
    """A plain torch script, which knows neither Horovod nor Lockstep."""
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    return script


def test_a_plain_torch_script_meets_by_its_own_means(make_run: MakeRun, launch: Launch, ddp: Path) -> None:
    run = make_run(script=str(ddp))
    launched = launch(run, 2, None, "--ports", "23000-23099")
    assert launched.wait() == 0, launched.text
    lines = [json.loads(line.partition("met ")[2]) for line in launched.text.splitlines() if "met {" in line]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0]["MASTER_ADDR"] == "127.0.0.1"
    assert 23000 <= int(lines[0]["MASTER_PORT"]) <= 23099
    assert 23000 <= published(run)["port"] <= 23099
    assert published(run)["port"] != int(lines[0]["MASTER_PORT"])
    assert lines[0]["GLOO_SOCKET_IFNAME"] == lines[0]["TP_SOCKET_IFNAME"] == "lo"
    assert processes_of(run) == []


def test_one_rank_meets_itself(make_run: MakeRun, launch: Launch, ddp: Path) -> None:
    launched = launch(make_run(script=str(ddp)), 1)
    assert launched.wait() == 0, launched.text
    assert '"MASTER_ADDR": "127.0.0.1"' in launched.text


def test_a_range_without_a_free_port_is_told_in_the_exit_record(make_run: MakeRun, launch: Launch, ddp: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 0))
        port = busy.getsockname()[1]
        run = make_run(script=str(ddp))
        launched = launch(run, 1, None, "--ports", f"{port}-{port}")
        assert launched.wait() == 69, launched.text
    ended = read_exit(run, 1)
    assert ended is not None
    assert ended.message is not None
    assert f"no free port {port}-{port}" in ended.message
    assert "widen the site's range of ports" in ended.message


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--subnet", "fd00::/64", "ranks meet by IPv4"),
        ("--subnet", "10.1.0.1/16", "is no IPv4 network such as 10.1.0.0/16"),
        ("--ports", "20000", "is not a range of ports FIRST-LAST such as 20000-29999"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_an_example(
    make_run: MakeRun, launch: Launch, option: str, value: str, words: str
) -> None:
    launched = launch(make_run(**MLP), 1, None, option, value)
    assert launched.wait() == 2
    assert words in launched.text


def test_machines_with_differently_named_interfaces_meet_by_their_routes(
    make_run: MakeRun, launch: Launch, ddp: Path, machines: tuple[Machine, Machine]
) -> None:
    ranks = on(launch, machines, make_run({"resources": {"nodes": 2}}, script=str(ddp)))
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert [met(rank)["GLOO_SOCKET_IFNAME"] for rank in ranks] == [machine.interface for machine in machines]
    assert {met(rank)["MASTER_ADDR"] for rank in ranks} == {machines[0].address}


def test_horovods_ranks_meet_in_the_subnet(
    make_run: MakeRun, launch: Launch, machines: tuple[Machine, Machine]
) -> None:
    run = make_run({"resources": {"nodes": 2}}, **MLP)
    options = ("--subnet", "10.99.0.0/16", "--subnet", "10.207.0.0/16", "--ports", "23000-23099")
    ranks = on(launch, machines, run, *options)
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].text + ranks[1].text
    assert len(digests(ranks[0])) == 1
    found = published(run)
    assert found["interfaces"] == {"node1": machines[0].interface, "node2": machines[1].interface}
    assert found["address"] == machines[0].address
    assert "rendezvous:" not in ranks[0].text, "nothing was found amiss"


def test_the_specs_subnet_beats_the_sites(make_run: MakeRun, launch: Launch, machines: tuple[Machine, Machine]) -> None:
    run = make_run({"resources": {"nodes": 2}, "communication": {"subnet": "10.99.0.0/16"}}, **MLP)
    ranks = on(launch, machines, run, "--subnet", "10.207.0.0/16")
    assert ranks[0].wait() == 69, ranks[0].text
    ranks[1].process.terminate()
    ranks[1].wait()
    ended = read_exit(run, 1)
    assert ended is not None
    assert ended.message is not None
    assert "node1 has no interface in 10.99.0.0/16" in ended.message
    assert f"{machines[0].interface} {machines[0].address}/24" in ended.message
    assert "set communication.subnet" in ended.message


def test_a_horovod_that_listens_elsewhere_ends_the_attempt_with_the_cure(
    make_run: MakeRun, launch: Launch, machines: tuple[Machine, Machine], tmp_path: Path
) -> None:
    script = tmp_path / "elsewhere.py"
    # As a Horovod does that ignores what it is told.
    script.write_text("import os\nos.environ['HOROVOD_GLOO_IFACE'] = 'lo'\nimport horovod.torch as hvd\nhvd.init()\n")
    run = make_run({"resources": {"nodes": 2}}, script=str(script))
    ranks = on(launch, machines, run)
    assert any(rank.wait(60) for rank in ranks[:1]), ranks[0].text
    ended = read_exit(run, 1)
    assert ended is not None
    assert ended.message is not None
    assert "listens at 127.0.0.1 in place of" in ended.message
    assert "lockstep worker build" in ended.message
    assert any(f"{machine.interface} ({machine.address})" in ended.message for machine in machines)
    for rank in ranks:
        rank.process.terminate()
        rank.wait()


def test_on_one_machine_it_is_only_mentioned(make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
    listed = json.loads(
        subprocess.run(["ip", "-j", "-4", "addr", "show", "up"], capture_output=True, check=True).stdout
    )
    other = next((link["ifname"] for link in listed if link["ifname"] != "lo"), None)
    if other is None:
        pytest.skip("this machine has no interface but lo")
    script = tmp_path / "elsewhere.py"
    script.write_text(
        f"import os\nos.environ['HOROVOD_GLOO_IFACE'] = {other!r}\nimport horovod.torch as hvd\nhvd.init()\n"
    )
    launched = launch(make_run(script=str(script)), 2)
    assert launched.wait() == 0, launched.text
    assert launched.text.count("rendezvous: the Horovod of rank 0") == 1


def test_a_second_users_requests_change_nothing(make_run: MakeRun, launch: Launch, tmp_path: Path) -> None:
    alone = launch(make_run(**MLP), 2)
    assert alone.wait() == 0, alone.text
    run = make_run(**MLP)
    attacked, ended = launch(run, 2), tmp_path / "ended"
    place = published(run)
    attack = [sys.executable, "-c", ATTACK, str(place["port"]), place["nonce"], str(ended)]
    with subprocess.Popen(attack, stdout=subprocess.PIPE, text=True, env=base_environment()) as attacker:
        code = attacked.wait()
        ended.touch()
        told, _ = attacker.communicate(timeout=60)
    assert code == 0, attacked.text
    assert digests(attacked) == digests(alone)
    answers = json.loads(told)
    assert set(answers) <= {"HTTP/1.1 403 Forbidden", "hung up"}, answers
    assert answers["HTTP/1.1 403 Forbidden"] > 100
    assert attacked.text.count("refused 127.0.0.9, which is no address of this job's nodes") == 1
    assert attacked.text.count("refused") == 1
