"""A checkpoint is whole or refused, is data and never code, and nothing that goes wrong costs the one before."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep_worker.checkpoint import folder as folders
from lockstep_worker.checkpoint.errors import CheckpointError
from lockstep_worker.checkpoint.file import Manifest, read, read_manifest, write
from lockstep_worker.checkpoint.folder import Name, kept, names, save
from lockstep_worker.checkpoint.snapshot import Snapshot, memory_of, pack, unpack
from lockstep_worker.checkpoint.tree import DTYPES, flatten, unflatten
from support import disks

STATE = {
    "model": {"weight": torch.arange(12.0).view(3, 4).t(), "half": torch.ones(5, dtype=torch.bfloat16)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "none": None}}, "betas": (0.9, 0.999), "amsgrad": False},
    "empty": torch.empty(0, 3),
    "own": [b"\0\xff", float("inf"), 2**70, "text"],
}
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
shapes = st.lists(st.integers(0, 4), max_size=3)
tensors = st.builds(lambda dtype, shape: torch.ones(shape).to(dtype), st.sampled_from(list(DTYPES.values())), shapes)
states = st.recursive(
    plain | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers() | st.text() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal in kind and value, bit by bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def written(state: Any, **known: Any) -> bytes:
    """The bytes of a checkpoint."""
    document, tensors = flatten(state)
    snapshot = Snapshot()
    snapshot.take(tensors)
    stream = io.BytesIO()
    about = {"job": "j", "attempt": 1, "step": 7, "ranks": 2, "saved": 1.0, "score": None, "tuning": None} | known
    write(stream, memory_of(snapshot.buffer), tensors=snapshot.places, state=document, **about)
    return stream.getvalue()


@pytest.fixture(scope="module")
def whole() -> bytes:
    return written(STATE)


class TestStates:
    @settings(max_examples=40)
    @given(states)
    def test_a_state_comes_back_as_it_was(self, state: Any) -> None:
        document, tensors = flatten(state)
        assert same(unflatten(json.loads(json.dumps(document)), tensors), state)

    @settings(max_examples=20)
    @given(states)
    def test_one_rank_tells_another_its_own(self, state: Any) -> None:
        assert same(unpack(pack(state)), state)

    def test_memory_that_is_shared_is_saved_once(self) -> None:
        weight = torch.ones(1000)
        _, tensors = flatten({"embedding": weight, "head": weight, "part": weight[:10]})
        assert [len(one) for one in tensors] == [1000, 10]

    @pytest.mark.parametrize("thing", [object(), {1, 2}, torch.ones(2).to_sparse(), len])
    def test_what_is_no_data_is_refused_by_its_place(self, thing: object) -> None:
        with pytest.raises(CheckpointError, match=r"state\['mine'\]\[0\] is a"):
            flatten({"mine": [thing]})

    def test_a_snapshot_is_of_its_moment_and_uses_its_memory_again(self) -> None:
        tensor, snapshot = torch.zeros(1000), Snapshot()
        snapshot.take([tensor])
        before = snapshot.buffer.data_ptr()
        tensor.fill_(1)
        assert not snapshot.buffer.any()
        snapshot.take([tensor])
        assert snapshot.buffer.data_ptr() == before
        assert snapshot.buffer.any()


class TestFiles:
    def test_it_comes_back_as_it_was(self, tmp_path: Path, whole: bytes) -> None:
        file = tmp_path / "one"
        file.write_bytes(whole)
        manifest, state = read(file)
        assert same(state, STATE)
        assert (manifest.step, manifest.ranks, manifest.job) == (7, 2, "j")
        assert read_manifest(file) == manifest

    def test_one_that_was_cut_short_anywhere_is_torn(self, tmp_path: Path, whole: bytes) -> None:
        file = tmp_path / "one"
        for length in [*range(16, len(whole), 37), *range(len(whole) - 60, len(whole))]:
            file.write_bytes(whole[:length])
            with pytest.raises(CheckpointError, match=r"/one is (torn|damaged)"):
                read(file)

    @settings(max_examples=60)
    @given(data=st.data())
    def test_one_with_any_bit_changed_is_refused(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, whole: bytes
    ) -> None:
        place = data.draw(st.integers(0, len(whole) - 1))
        file = tmp_path_factory.mktemp("changed") / "one"
        changed = bytearray(whole)
        changed[place] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(changed)
        try:
            _, state = read(file)
        except CheckpointError:
            return
        # Between two tensors there are bytes that belong to none; they are digested all the same.
        pytest.fail(f"byte {place} may be anything, and {state.keys()} was read")

    def test_nothing_in_it_is_ever_run(self, tmp_path: Path) -> None:
        ran = tmp_path / "ran"

        class Bomb:
            def __reduce__(self) -> Any:
                return (ran.touch, ())

        file = tmp_path / "one"
        file.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError, match="no checkpoint of Lockstep's"):
            read(file)
        torch.save({"x": Bomb()}, file)
        with pytest.raises(CheckpointError, match="no checkpoint of Lockstep's"):
            read(file)
        assert not ran.exists()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("state", {"module": "os"}), ("state", {"tensor": 99}), ("state", {"tensor": -1}),
            ("state", {"a": 1, "b": 2}), ("tensors", [["float32", [1 << 40], 0]]), ("tensors", [["float32", [-1], 0]]),
            ("tensors", [["evil", [1], 0]]), ("tensors", [["float32", [1], 3]]), ("tensors", [["float32", [1], -64]]),
            ("tensors", [7]), ("body_bytes", 1), ("body_bytes", 1 << 60),
        ],
    )  # fmt: skip
    def test_a_manifest_that_makes_no_sense_is_refused(self, tmp_path: Path, field: str, value: Any) -> None:
        body = bytes(64)
        about = {"job": None, "attempt": 1, "step": 1, "ranks": 1, "saved": 0.0, "score": None, "tuning": None,
                 "body_bytes": 64, "body_sha256": hashlib.sha256(body).hexdigest(),
                 "tensors": [["float32", [4], 0]], "state": {"tensor": 0}} | {field: value}  # fmt: skip
        text = json.dumps(about).encode()
        footer = hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + b"LOCKSTEP-ENDED-1"
        file = tmp_path / "one"
        file.write_bytes(b"LOCKSTEP-SAVED-1" + body + text + footer)
        with pytest.raises(CheckpointError, match="/one"):
            read(file)

    def test_one_that_is_not_there_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="No such file"):
            read(tmp_path / "none")


NAMES = st.builds(Name, st.integers(1, 5), st.integers(0, 50))


class TestFolders:
    @given(st.dictionaries(NAMES, st.none() | st.floats(allow_nan=False)), st.integers(1, 4))
    def test_the_newest_and_the_best_stay(self, scores: dict[Name, float | None], keep: int) -> None:
        stays = kept(scores, keep)
        assert stays >= set(sorted(scores)[-keep:])
        assert len(stays) <= keep + 1
        known = [score for score in scores.values() if score is not None]
        assert not known or max(known) in {scores[name] for name in stays}

    @settings(max_examples=20)
    @given(NAMES)
    def test_a_name_is_read_back(self, name: Name) -> None:
        assert Name.parse(name.file) == name

    def test_others_files_are_nobodys_business(self, tmp_path: Path) -> None:
        for file in ("notes.txt", "step-1-attempt-1.lockstep", ".step-000000001-attempt-1.lockstep.00.partial"):
            (tmp_path / file).touch()
        (tmp_path / Name(2, 5).file).touch()
        assert names(tmp_path) == [Name(2, 5)]
        assert names(tmp_path / "none") == []
        folders.remove_partials(tmp_path)
        assert len(list(tmp_path.iterdir())) == 3

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        with disks.small(tmp_path / "disk") as disk:
            yield disk

    def test_a_full_disk_leaves_what_was_there(self, small: Path) -> None:
        save(small, Name(1, 1), lambda stream: stream.write(b"first"), lambda: None)
        with pytest.raises(OSError, match="No space left"):
            save(small, Name(1, 2), lambda stream: stream.write(bytes(8 << 20)), lambda: None)
        assert [file.name for file in small.iterdir()] == [Name(1, 1).file]
        assert (small / Name(1, 1).file).read_bytes() == b"first"

    def test_so_does_a_limit_of_a_files_size(self, tmp_path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                save(tmp_path, Name(1, 2), lambda stream: stream.write(bytes(8 << 20)), lambda: None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_asked_right_before_it_appears_may_forbid_it(self, tmp_path: Path) -> None:
        def forbids() -> None:
            assert len(list(tmp_path.iterdir())) == 1, "it is on the disk, under another name"
            raise CheckpointError("fenced")

        with pytest.raises(CheckpointError, match="fenced"):
            save(tmp_path, Name(1, 2), lambda stream: stream.write(b"x"), forbids)
        assert list(tmp_path.iterdir()) == []

    def test_the_manifest_says_what_the_file_is_of(self, tmp_path: Path, whole: bytes) -> None:
        size = save(tmp_path, Name(3, 9), lambda stream: stream.write(whole), lambda: None)
        assert size == len(whole)
        found = read_manifest(tmp_path / Name(3, 9).file)
        assert isinstance(found, Manifest)
        assert found.body_bytes < size
