"""Specs that differ in a few values: which there are, how they are called, and what they have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_service.jobs.control import merged
from lockstep_slurm.job.file import SpecError
from lockstep_slurm.job.sweep import read, shared

SPEC = '[training]\nmodel = "digits-mlp"\ndata = "digits"\n'
JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["", "a"]), st.lists(st.integers(0, 1), max_size=2)),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "spec.toml"
    found.write_text(f'name = "digits"\n{SPEC}')
    return found


class TestRead:
    def test_every_combination_has_a_name_that_tells_its_values(self, file: Path) -> None:
        specs = read(file, ["training.epochs=3"], ["training.seed=1,2", "training.learning_rate=0.1,0.01"])
        assert [spec.name for spec in specs] == [
            "digits-seed1-learning_rate0.1",
            "digits-seed1-learning_rate0.01",
            "digits-seed2-learning_rate0.1",
            "digits-seed2-learning_rate0.01",
        ]
        assert [(spec.training.seed, spec.training.learning_rate) for spec in specs] == [
            (1, 0.1), (1, 0.01), (2, 0.1), (2, 0.01),
        ]  # fmt: skip
        assert {spec.training.epochs for spec in specs} == {3}

    def test_values_may_be_bare_words_truths_and_arrays(self, file: Path) -> None:
        assert [spec.training.model for spec in read(file, [], ["training.model=digits-mlp, digits-cnn"])] == [
            "digits-mlp",
            "digits-cnn",
        ]
        names = [spec.name for spec in read(file, [], ["resources.exclusive=true,false"])]
        assert names == ["digits-exclusivetrue", "digits-exclusivefalse"]
        arrays = read(file, [], ['environment.modules=["a/1"],["a/2", "b/1"]'])
        assert [spec.environment.modules for spec in arrays] == [["a/1"], ["a/2", "b/1"]]

    def test_times_and_dates_are_text(self, file: Path) -> None:
        specs = read(file, [], ["resources.time=12:00:00,18:30:00", "resources.begin=2026-12-01T08:00:00"])
        assert [spec.resources.time for spec in specs] == ["12:00:00", "18:30:00"]
        assert {spec.resources.begin for spec in specs} == {"2026-12-01T08:00:00"}
        json.dumps([spec.model_dump() for spec in specs])

    def test_names_that_their_values_do_not_make_are_numbered(self, file: Path) -> None:
        many = read(file, [], ["training.epochs=" + ",".join(map(str, range(1, 11))), "environment.modules=['a/1']"])
        assert [many[0].name, many[9].name] == ["digits-01", "digits-10"]
        long = read(file, [f"name={'n' * 64}"], ["training.seed=1,2"])
        assert [spec.name for spec in long] == ["n" * 62 + "-1", "n" * 62 + "-2"]
        assert [spec.name for spec in read(file, [], ["name=a,b"])] == ["a", "b"]

    def test_relative_paths_are_taken_from_the_files_folder(self, file: Path) -> None:
        specs = read(file, [], ["environment.setup_file=one.sh,two.sh"])
        assert [spec.environment.setup_file for spec in specs] == [str(file.parent / f"{n}.sh") for n in ("one", "two")]

    @pytest.mark.parametrize(
        ("each", "says"),
        [
            (["training.seed"], "is not of the form key=value,value"),
            (["training.seed="], "is not of the form key=value,value"),
            (["=1"], "is not of the form key=value,value"),
            (["training.seed=1,2,1"], "training.seed: has 1 twice"),
            (["training.seed=1", "training.seed=2"], "training.seed: is given twice"),
            (["training.seed=1,many"], "with training.seed=many: training.seed: is 'many'"),
            (["training.sed=1"], "training.sed: is not a key that exists here (did you mean seed?); there are: "),
            (["training.model.x=1"], "'model' is a value in the file"),
            (["training.seed=" + ",".join(map(str, range(30))), "training.epochs=" + ",".join(map(str, range(1, 31)))],
             "makes 900 jobs; one request takes 500 at most"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_named(self, file: Path, each: list[str], says: str) -> None:
        with pytest.raises(SpecError) as caught:
            read(file, [], each)
        assert says in str(caught.value)


class TestShared:
    @settings(max_examples=50)
    @given(st.lists(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), min_size=1, max_size=4))
    def test_what_is_put_together_again_is_what_it_was(self, documents: list[dict[str, Any]]) -> None:
        common, rest = shared(documents)
        for part, whole in zip(rest, documents, strict=True):
            assert json.dumps(merged(common, part), sort_keys=True) == json.dumps(whole, sort_keys=True)

    def test_what_all_have_is_told_once(self) -> None:
        one = {"name": "a", "training": {"model": "m", "seed": 1}, "resources": {"nodes": 2}}
        other = {"name": "b", "training": {"model": "m", "seed": 2}, "resources": {"nodes": 2}}
        common, rest = shared([one, other])
        assert common == {"training": {"model": "m"}, "resources": {"nodes": 2}}
        assert rest == [{"name": "a", "training": {"seed": 1}}, {"name": "b", "training": {"seed": 2}}]
