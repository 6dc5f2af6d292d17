"""Imports are seen however they are made, and none fails, changes or tells of us because it was."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from lockstep_worker.imports import Watcher


class Watched:
    """A watcher in place, and what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.watcher = Watcher(lambda what, error: self.events.append(f"{what}: {error!r}"))

    def watch(self, name: str) -> None:
        """Notes when the module's code runs."""

        @contextmanager
        def around() -> Iterator[None]:
            self.events.append(f"before {name}")
            yield
            self.events.append(f"behind {name}")

        def after(module: ModuleType) -> None:
            self.events.append(f"after {module.__name__} {getattr(module, 'VALUE', None)}")

        self.watcher.watch(name, around=around, after=after)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    for name, text in {
        "seen_a": "VALUE = 1\n",
        "seen_b": "import seen_a\nVALUE = 2\n",
        "seen_broken": "raise RuntimeError('the module is broken')\n",
        "seen_pack/__init__": "from seen_pack.deep.basics import Basics\nVALUE = 3\n",
        "seen_pack/deep/__init__": "",
        "seen_pack/deep/basics": "class Basics:\n    def init(self): return 'plain'\nVALUE = 4\n",
    }.items():
        file = tmp_path / "modules" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    found = Watched()
    monkeypatch.setattr(sys, "meta_path", [found.watcher, *sys.meta_path])
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if name.startswith("seen_"):
            del sys.modules[name]


def test_the_code_of_a_module_runs_within_and_the_module_is_handed_over_after_it(watched: Watched) -> None:
    watched.watch("seen_a")
    module = importlib.import_module("seen_a")
    assert watched.events == ["before seen_a", "behind seen_a", "after seen_a 1"]
    assert importlib.import_module("seen_a") is module
    assert len(watched.events) == 3
    # Nothing of ours is left on what others may ask.
    assert type(module.__loader__) is SourceFileLoader
    assert "exec_module" not in vars(module.__loader__)


def test_an_import_within_an_import_is_seen_within_it(watched: Watched) -> None:
    watched.watch("seen_a")
    watched.watch("seen_b")
    importlib.import_module("seen_b")
    assert watched.events == [
        "before seen_b", "before seen_a", "behind seen_a", "after seen_a 1", "behind seen_b", "after seen_b 2",
    ]  # fmt: skip


def test_a_class_deep_in_a_package_is_changed_before_anybody_has_it(watched: Watched) -> None:
    def after(module: ModuleType) -> None:
        module.Basics.init = lambda _: "ours"

    watched.watcher.watch("seen_pack.deep.basics", after=after)
    pack = importlib.import_module("seen_pack")
    assert pack.Basics().init() == "ours"


def test_a_lazy_import_is_seen_when_it_is_made_good(watched: Watched) -> None:
    watched.watch("seen_a")
    spec = importlib.util.find_spec("seen_a")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["seen_a"] = module
    spec.loader.exec_module(module)
    assert watched.events == []
    assert module.VALUE == 1
    assert watched.events[0] == "before seen_a"
    assert watched.events[-1].startswith("after seen_a")


def test_an_import_in_another_thread_is_seen(watched: Watched) -> None:
    watched.watch("seen_b")
    thread = threading.Thread(target=importlib.import_module, args=("seen_b",))
    thread.start()
    thread.join()
    assert watched.events == ["before seen_b", "behind seen_b", "after seen_b 2"]


def test_a_module_that_was_there_before_is_handed_over_at_once(watched: Watched) -> None:
    importlib.import_module("seen_a")
    watched.watch("seen_a")
    assert watched.events == ["after seen_a 1"]


def test_a_module_that_fails_fails_as_it_does_alone_and_can_be_tried_again(watched: Watched) -> None:
    watched.watch("seen_broken")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the module is broken"):
            importlib.import_module("seen_broken")
        assert "seen_broken" not in sys.modules
    assert watched.events == ["before seen_broken", "behind seen_broken"] * 2


def test_a_module_that_is_missing_is_missing(watched: Watched) -> None:
    watched.watch("seen_missing")
    with pytest.raises(ModuleNotFoundError, match="seen_missing"):
        importlib.import_module("seen_missing")
    assert importlib.util.find_spec("seen_missing") is None
    assert watched.events == []


def test_errors_of_a_watcher_are_told_and_never_the_imports(watched: Watched) -> None:
    @contextmanager
    def around() -> Iterator[None]:
        raise ValueError("before")
        yield

    def after(_: ModuleType) -> None:
        raise ValueError("after")

    watched.watcher.watch("seen_a", around=around, after=after)
    assert importlib.import_module("seen_a").VALUE == 1
    assert watched.events == [
        "around the import of seen_a: ValueError('before')", "after the import of seen_a: ValueError('after')",
    ]  # fmt: skip


def test_modules_of_one_zip_share_a_loader_and_only_the_watched_one_is_seen(watched: Watched, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "seen.zip", "w") as archive:
        archive.writestr("seen_zip_a.py", "import seen_zip_b\nVALUE = 5\n")
        archive.writestr("seen_zip_b.py", "VALUE = 6\n")
    sys.path.insert(0, str(tmp_path / "seen.zip"))  # the fixture's monkeypatch puts the path back
    watched.watch("seen_zip_a")
    assert importlib.import_module("seen_zip_a").VALUE == 5
    assert sys.modules["seen_zip_b"].VALUE == 6
    assert watched.events == ["before seen_zip_a", "behind seen_zip_a", "after seen_zip_a 5"]


def test_a_loader_that_cannot_be_listened_to_loads_unseen(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        __slots__ = ()

        def create_module(self, _spec: object) -> None:
            return None

        def exec_module(self, module: ModuleType) -> None:
            module.VALUE = 7  # type: ignore[attr-defined]

    class Finder:
        @staticmethod
        def find_spec(name: str, _path: object = None, _target: object = None) -> object:
            return importlib.util.spec_from_loader(name, Odd()) if name == "seen_odd" else None  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "meta_path", [watched.watcher, Finder, *sys.meta_path[1:]])
    watched.watch("seen_odd")
    assert importlib.import_module("seen_odd").VALUE == 7
    assert watched.events[0].startswith("the import of seen_odd is not seen: AttributeError")
