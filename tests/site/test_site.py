"""A site's ``cluster.toml``: what it fills in, what it refuses and in which words, and that every key is documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from lockstep_slurm.job.file import SpecError
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.placement import PlacementError, Topology, from_slurm, plan, request_of
from lockstep_slurm.site import file as site_file
from lockstep_slurm.site.file import SiteError, find, read
from lockstep_slurm.site.model import Site
from lockstep_slurm.site.rules import fill, filled, refusals, runs_folder, script_site
from lockstep_slurm.site.units import NO_LIMIT, seconds, size

ROOT = Path(__file__).parents[2]
EXAMPLE = read(ROOT / "examples" / "cluster.toml")


def spec_of(**sections: Any) -> JobSpec:
    return JobSpec.model_validate({"training": {"model": "digits-cnn", "data": "digits"}} | sections)


def test_a_site_of_which_nothing_is_said_changes_nothing() -> None:
    spec = spec_of(resources={"partition": "any", "account": "any", "nodes": 1000})
    nothing = read(None)
    assert fill(spec, nothing) is spec
    assert refusals(spec, nothing) == []


class TestFill:
    def test_what_is_left_out_is_the_partitions_else_the_sites(self) -> None:
        said = spec_of()
        found = fill(said, EXAMPLE)
        assert found.resources.model_dump(exclude_none=True) == said.resources.model_dump(exclude_none=True) | {
            "partition": "cpu", "account": "physics", "qos": "normal", "time": "4:00:00"
        }  # fmt: skip
        assert filled(said, found) == [
            "resources.account", "resources.partition", "resources.qos", "resources.time"
        ]  # fmt: skip

    def test_what_is_said_stays(self) -> None:
        said = spec_of(resources={"partition": "genoa", "account": "mine", "qos": "q", "time": "30"})
        assert fill(said, EXAMPLE) is said
        assert filled(said, said) == []

    @pytest.mark.parametrize(
        ("placement", "exclusive", "expected"),
        [
            ({"cpus_per_rank": 8}, False, 2),
            ({"cpus_per_rank": 2}, False, "auto"),
            ({}, False, "auto"),
            ({"ranks_per_node": 2}, True, 2),
            ({"ranks_per_node": 72}, True, "auto"),
            ({"cpus_per_rank": 8, "communication_cpus": 0}, False, 0),
            ({"cpus_per_rank": 4, "loader_cpus": 2}, False, "auto"),
            ({"cpus_per_rank": 5, "loader_cpus": 2}, False, 2),
            ({"cpus_per_rank": 8, "policy": "sibling"}, False, "auto"),
            ({"cpus_per_rank": 8, "policy": "none"}, False, "auto"),
        ],
    )
    def test_communication_cpus_are_the_partitions_where_ranks_have_more(
        self, placement: dict[str, Any], exclusive: bool, expected: object
    ) -> None:
        spec = spec_of(placement=placement, resources={"partition": "cpu", "exclusive": exclusive})
        assert fill(spec, EXAMPLE).placement.communication_cpus == expected

    def test_what_is_filled_in_is_a_valid_spec_again(self) -> None:
        found = fill(spec_of(placement={"cpus_per_rank": 3}), EXAMPLE)
        assert JobSpec.model_validate_json(found.model_dump_json()) == found

    @given(
        wanted=st.integers(0, 6),
        threads=st.sampled_from([1, 2]),
        placement=st.fixed_dictionaries(
            {
                "cpus_per_rank": st.integers(1, 16),
                "ranks_per_node": st.integers(1, 2),
                "loader_cpus": st.integers(0, 8),
                "smt": st.booleans(),
                "policy": st.sampled_from(["last", "first", "sibling", "nic", "none"]),
            }
        ),
    )
    def test_a_job_that_could_be_placed_still_can_be(
        self, wanted: int, threads: int, placement: dict[str, Any]
    ) -> None:
        said = spec_of(placement=placement, resources={"partition": "p"})
        node = from_slurm({"name": "n1", "sockets": 1, "cores": 32, "threads": threads, "real_memory": 1000})
        cores = -(-placement["cpus_per_rank"] // threads) * placement["ranks_per_node"]
        granted = node.cpus[: cores * threads]  # Slurm gives whole cores to each rank
        assume(is_placed(said, node, granted))
        site = Site.model_validate({"partitions": {"p": {"communication_cpus": wanted}}})
        assert is_placed(fill(said, site), node, granted)


def is_placed(spec: JobSpec, node: Topology, granted: tuple[int, ...]) -> bool:
    try:
        plan(node, granted, request_of(spec.model_dump(mode="json"), ranks=spec.placement.ranks_per_node))
    except PlacementError:
        return False
    return True


@pytest.mark.parametrize(
    ("sections", "where", "words"),
    [
        ({"resources": {"partition": "gpu"}}, "resources.partition", "does not offer; it has cpu, genoa"),
        ({"resources": {"account": "chess"}}, "resources.account", "does not allow; it allows climate, physics"),
        ({"resources": {"qos": "urgent"}}, "resources.qos", "does not allow; it allows long, normal"),
        ({"resources": {"time": "2-00:01"}}, "resources.time", "but partition 'cpu' allows at most '2-00'"),
        ({"resources": {"nodes": 65}}, "resources.nodes", "is 65, but partition 'cpu' allows at most 64 a job"),
        ({"resources": {"mem": "1T"}}, "resources.mem", "but the nodes of partition 'cpu' have at most '250G'"),
        (
            {"placement": {"ranks_per_node": 2, "cpus_per_rank": 40}},
            "placement.ranks_per_node",
            "which is 80 CPUs on a node, but partition 'cpu' has icelake with 72",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(sections: dict[str, Any], where: str, words: str) -> None:
    ((place, sentence, value),) = refusals(fill(spec_of(**sections), EXAMPLE), EXAMPLE)
    assert place == where
    assert words in sentence
    section, key = where.split(".")
    assert value == sections[section][key]


@pytest.mark.parametrize(
    ("site", "whose"),
    [
        ({"defaults": {"time": "30"}}, "the site's default"),
        ({"defaults": {"time": "30"}, "partitions": {"debug": {}}}, "the site's default"),
        (
            {"defaults": {"partition": "debug"}, "partitions": {"debug": {"defaults": {"time": "30"}}}},
            "the default of partition 'debug'",
        ),
    ],
)
def test_a_default_time_limit_that_ends_before_the_signal_is_refused(site: dict[str, Any], whose: str) -> None:
    it, said = Site.model_validate(site), spec_of(checkpoint={"signal_seconds": 1800})
    ((place, sentence, value),) = refusals(fill(said, it), it)
    assert (place, value) == ("resources.time", "30")
    assert f"is 30 (1800 s), {whose}, and checkpoint.signal_seconds is 1800: " in sentence
    assert "ask for more than 1860 s" in sentence
    assert refusals(fill(spec_of(checkpoint={}), it), it) == []
    longer = spec_of(checkpoint={"signal_seconds": 1800}, resources={"time": "40"})
    assert refusals(fill(longer, it), it) == []


def test_a_default_that_a_partition_does_not_allow_is_not_filled_in() -> None:
    debug = {"accounts": ["dbg"], "qos": ["fast"], "time": "1:00:00"}
    site = Site.model_validate(
        {"defaults": {"account": "general", "qos": "normal", "time": "2-00"}, "partitions": {"debug": debug}}
    )
    said = spec_of(resources={"partition": "debug"})
    assert fill(said, site) == said
    assert refusals(said, site) == []


def test_no_time_limit_is_longer_than_any() -> None:
    site = Site.model_validate({"partitions": {"debug": {"time": "1:00:00"}}})
    assert [where for where, *_ in refusals(spec_of(resources={"partition": "debug", "time": "0"}), site)] == [
        "resources.time"
    ]


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ('pyhton = "/x"\n', "pyhton", "is not a key that exists here (did you mean python?); there are: container"),
        ("[partitions.cpu]\nnode = 3\n", "partitions.cpu.node", "there are: accounts, communication_cpus, defaults"),
        ('[network]\nports = "1-2"\n', "network.ports", "two ports with a dash between"),
        ('[network]\nports = "30000-20000"\n', "network.ports", '"first-last" within 1024-65535'),
        ('[network]\nsubnets = ["10.1.2.3/16"]\n', "network.subnets.0", "is no IPv4 network"),
        ('python = "bin/python"\n', "python", "is relative"),
        ('runs = "/scratch/{group}"\n', "runs", "has {group}, but the only word that is filled in is {user}"),
        ('[modules]\ninit = "a\\u0007"\n', "modules.init", "control character"),
        (
            '[partitions.cpu]\nnode_types = ["old"]\n[node_types.new]\ncpus = 1\n',
            "",
            "has 'old', but `node_types` has new",
        ),
        ('[defaults]\npartition = "a"\n[partitions.b]\n', "", "defaults.partition is 'a', but `partitions` has b"),
        ('[partitions.a]\nqos = ["x"]\n[partitions.a.defaults]\nqos = "y"\n', "partitions.a", "not among x"),
        (
            '[partitions.a]\ntime = "30"\n[partitions.a.defaults]\ntime = "1-0"\n',
            "partitions.a",
            "longer than time '30'",
        ),
        ("x = = 1\n", "", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_what_to_do(
    tmp_path: Path, text: str, where: str, words: str
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(SiteError) as caught:
        read(file)
    assert str(caught.value).startswith(str(file))
    assert words in dict(caught.value.problems)[where]
    assert isinstance(caught.value, SpecError)  # the command line ends with the code of bad input


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(site_file, "SYSTEM", tmp_path / "etc.toml")
    assert find(None, home) is None
    (home / "cluster.toml").touch()
    assert find(None, home) == home / "cluster.toml"
    (tmp_path / "etc.toml").touch()
    assert find(None, home) == tmp_path / "etc.toml"
    assert find(tmp_path / "given.toml", home) == tmp_path / "given.toml"
    with pytest.raises(SiteError, match="cannot be read: No such file"):
        read(tmp_path / "given.toml")


def test_a_script_knows_all_that_the_site_says_of_it() -> None:
    found = script_site(EXAMPLE, python="/p", runs="/r", library=None)
    assert found.module_init == "source /usr/share/lmod/lmod/init/bash\nmodule use /apps/modules"
    assert (found.container_init, found.apptainer) == ("module load apptainer", "apptainer")
    assert (found.subnets, found.ports) == (("10.10.0.0/16", "10.1.0.0/16"), "20000-29999")
    assert (found.mpi, found.mpirun) == ("pmix", "mpirun")
    assert runs_folder(EXAMPLE, "ada") == Path("/scratch/ada/lockstep")


def keys_of(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, str]]:
    """Every key with its description; a name of the administrator's own is written in capitals."""
    for name, field in model.model_fields.items():
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if isinstance(kind, type)]
        models = [kind for kind in inner if issubclass(kind, BaseModel)]
        if models:
            below = f"{before}{name}." + ("NAME." if field.annotation is not models[0] else "")
            yield from keys_of(models[0], below)
        else:
            assert field.description, f"{before}{name} says nothing of itself"
            yield f"{before}{name}", field.description


def test_every_key_is_documented_in_the_words_of_the_model() -> None:
    page = (ROOT / "docs" / "site.md").read_text()
    documented = dict(re.findall(r"^\| `([a-zA-Z_.]+)` \| (.*) \|$", page, re.MULTILINE))
    assert documented == dict(keys_of(Site))


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_times_are_what_sbatch_takes_them_for(days: int, hours: int, minutes: int, rest: int) -> None:
    assert seconds(f"{days}-{hours}:{minutes:02}:{rest:02}") == (
        (((days * 24 + hours) * 60 + minutes) * 60 + rest) or NO_LIMIT
    )
    assert seconds(f"{days}-{hours}") == (((days * 24 + hours) * 3600) or NO_LIMIT)
    assert seconds(f"{hours}:{minutes:02}:{rest:02}") == (((hours * 60 + minutes) * 60 + rest) or NO_LIMIT)
    assert seconds(f"{minutes}:{rest:02}") == ((minutes * 60 + rest) or NO_LIMIT)
    assert seconds(str(minutes)) == ((minutes * 60) or NO_LIMIT)


def test_sizes_are_mebibytes_unless_they_say_otherwise() -> None:
    assert (size("4"), size("4M"), size("1G"), size("2T")) == (4 << 20, 4 << 20, 1 << 30, 2 << 40)
