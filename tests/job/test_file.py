"""Reading a spec: what is wrong, where, and what to do; nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lockstep_slurm.job import forms
from lockstep_slurm.job.file import SpecError, changes, read
from lockstep_slurm.job.spec import JobSpec
from lockstep_slurm.site.model import Site

EXAMPLES = Path(__file__).parents[2] / "examples"
GOOD = '[training]\nmodel = "digits-cnn"\ndata = "digits"\n'


def problems_of(tmp_path: Path, text: str | bytes, *settings: str) -> dict[str, str]:
    file = tmp_path / "job.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        read(file, settings)
    assert str(caught.value).startswith((str(file), "--set"))
    return dict(caught.value.problems)


def test_every_example_is_a_valid_spec() -> None:
    files = sorted(set(EXAMPLES.rglob("*.toml")) - {EXAMPLES / "cluster.toml"})
    assert len(files) >= 3
    for file in files:
        read(file)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        (
            '[training]\nmodel = "lenet"\ndata = "digits"\n',
            "training.model",
            "is 'lenet', but has to be one of 'digits-cnn'",
        ),
        ('[training]\nmodel = "digits-cnn"\n', "training", "needs `data`"),
        ('[training]\nmodel = "digits-cnn"\ndata = "synthetic-imagenet"\n', "training", "does not fit"),
        ("[training]\nepochs = 3\n", "training", "needs `model`"),
        ('[training]\nscript = "/a.py"\nmodel = "digits-cnn"\n', "training", "keep one"),
        (GOOD + "[resources]\nnodes = 0\n", "resources.nodes", "is 0, but has to be at least 1"),
        (GOOD + "[resources]\nnodes = -1\n", "resources.nodes", "is -1, but has to be at least 1"),
        ('name = "two\\nlines"\n' + GOOD, "name", "has to be letters, digits"),
        ('name = "-rf"\n' + GOOD, "name", "has to be letters, digits"),
        (GOOD + "[resources]\nnode = 2\n", "resources.node", "(did you mean nodes?); there are: account"),
        ("nodes = 2\n" + GOOD, "nodes", "(did you mean resources.nodes?); there are: checkpoint, communication"),
        (GOOD + "[colours]\n", "colours", "is not a key that exists here; there are: checkpoint, communication"),
        (GOOD + 'epochs = "many"\n', "training.epochs", "is 'many', but has to be a whole number"),
        (GOOD + "epochs = 1.5\n", "training.epochs", "is 1.5, but has to be a whole number"),
        (GOOD + 'momentum = "high"\n', "training.momentum", "is 'high', but has to be a number"),
        (GOOD + '[resources]\nexclusive = "maybe"\n', "resources.exclusive", "is 'maybe', but has to be true or false"),
        (GOOD + '[environment]\nmodules = "gcc"\n', "environment.modules", "is 'gcc', but has to be a list"),
        ("resources = 2\n" + GOOD, "resources", "is 2, but has to be a section of keys and values"),
        (GOOD + '[environment.variables]\nA = "x\\ny"\n', "environment.variables.A", "control character"),
        (GOOD + '[environment.variables]\nSLURM_X = "1"\n', "environment", "belongs to the launcher"),
        (GOOD + '[resources]\npartition = "a --wrap"\n', "resources.partition", "has to be one word"),
        (GOOD + '[resources]\ntime = "soon"\n', "resources.time", "has to be minutes, or"),
        (GOOD + '[resources]\nmail_type = ["END"]\n', "resources", "without mail_user"),
        (GOOD + "[placement]\ncpus_per_rank = 2\ncommunication_cpus = 2\n", "placement", "no CPU would be left"),
        (GOOD + "[placement]\ncommunication_cpus = -1\n", "placement.communication_cpus", 'neither "auto" nor'),
        (GOOD + "[resources]\ntime = 30\n", "resources.time", 'put it in quotes: "30"'),
        (
            GOOD + "[resources]\ntime = 12:00:00\n",
            "resources.time",
            'is the time 12:00:00, but has to be text; put it in quotes: "12:00:00"',
        ),
        (
            GOOD + "[resources]\nbegin = 2026-12-01 08:00:00\n",
            "resources.begin",
            'but has to be text; put it in quotes: "2026-12-01T08:00:00"',
        ),
        (GOOD + "[resources]\nnodes = 2026-12-01\n", "resources.nodes", "is the date 2026-12-01, but has to be"),
        ('[training]\nscript = "~nobody.here/train.py"\n', "training.script", "give the whole path"),
        (
            GOOD + '[environment.container]\nimage = "docker://a/b"\n',
            "environment.container.image",
            "which is relative",
        ),
        (GOOD + '[checkpoint]\nresume_step = "best"\n', "checkpoint", "without resume_from"),
        (
            GOOD + '[checkpoint]\nresume_step = "newest"\n',
            "checkpoint.resume_step",
            'neither "last" nor "best" nor a step',
        ),
        (GOOD + "[checkpoint]\nresume_step = 0\n", "checkpoint.resume_step", "0 is neither"),
        ("x = = 1\n", "", "not valid TOML"),
        (b'name = "\xff"\n', "", "not UTF-8: byte 0xff in line 1"),
    ],
)
def test_bad_input_says_where_and_what_to_do(tmp_path: Path, text: str | bytes, where: str, words: str) -> None:
    found = problems_of(tmp_path, text)
    assert where in found
    assert words in found[where]


def test_only_a_key_that_exists_can_be_left_out() -> None:
    left_out = changes([], ["resources.time", "environment.variables.OMP_NUM_THREADS", "checkpoint"])
    assert left_out == {
        "resources": {"time": None},
        "environment": {"variables": {"OMP_NUM_THREADS": None}},
        "checkpoint": None,
    }
    for key, says in (("resource.time", "did you mean resources?"), ("resources.tme", "did you mean time?")):
        with pytest.raises(SpecError, match=re.escape(says)):
            changes([], [key])


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    found = problems_of(tmp_path, GOOD + '[resources]\nnodes = 0\ntime = "x"\n[placement]\nranks_per_node = 0\n')
    assert set(found) == {"resources.nodes", "resources.time", "placement.ranks_per_node"}


def test_relative_paths_are_of_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(
        '[training]\nscript = "train.py"\n[environment]\nmodule_use = ["m", "/apps"]\nsetup_file = "s.sh"\n'
        '[environment.container]\nimage = "images/a.sif"\nbinds = ["/data:/mnt"]\n'
    )
    spec = read(tmp_path / "job.toml")
    assert spec.training.script == f"{tmp_path}/train.py"
    assert spec.environment.module_use == [f"{tmp_path}/m", "/apps"]
    assert spec.environment.setup_file == f"{tmp_path}/s.sh"
    assert spec.environment.container is not None
    assert (spec.environment.container.image, spec.environment.container.binds) == (
        f"{tmp_path}/images/a.sif", ["/data:/mnt"]
    )  # fmt: skip


def test_relative_paths_of_data_and_models_are_of_the_files_folder_and_a_nodes_disk_has_none(tmp_path: Path) -> None:
    text = '[training]\nmodel = "small:build"\nmodel_path = "."\ndata = "images"\ndata_path = "patches"\nstage = '
    (tmp_path / "job.toml").write_text(text + '"/local"\n[checkpoint]\nresume_from = "old"\n')
    spec = read(tmp_path / "job.toml")
    training = spec.training
    assert spec.checkpoint is not None
    assert spec.checkpoint.resume_from == f"{tmp_path}/old"
    assert (training.model_path, training.data_path, training.stage) == (f"{tmp_path}", f"{tmp_path}/patches", "/local")
    (tmp_path / "job.toml").write_text(text + "true\n")
    assert read(tmp_path / "job.toml").training.stage is True


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read(tmp_path / "none.toml")


def test_settings_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(GOOD)
    spec = read(
        file, ["resources.nodes=4", "name=trial", "resources.exclusive=true", 'resources.mail_user="a@b.example"']
    )
    assert (spec.resources.nodes, spec.name, spec.resources.exclusive) == (4, "trial", True)
    assert problems_of(tmp_path, GOOD, "resources.nodes") == {
        "": "'resources.nodes' is not of the form key=value, such as resources.nodes=4"
    }
    assert "is a value in the file" in problems_of(tmp_path, GOOD, "training.model.x=1")["training.model.x"]
    assert "resources.nodes" in problems_of(tmp_path, GOOD, "resources.nodes=many")


def test_what_looks_like_a_date_a_time_or_no_number_is_text(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text(GOOD)
    settings = [
        "resources.time=12:00:00",
        "resources.begin= 2026-12-01T08:00:00",
        "name=2026-12-01",
        "environment.modules=[12:00:00, 2026-12-01T08:00:00, nan]",
        "environment.variables={LIMIT = -inf, AT = 08:00:00}",
    ]
    spec = read(file, settings)
    assert (spec.resources.time, spec.resources.begin, spec.name) == ("12:00:00", "2026-12-01T08:00:00", "2026-12-01")
    assert spec.environment.modules == ["12:00:00", "2026-12-01T08:00:00", "nan"]
    assert spec.environment.variables == {"LIMIT": "-inf", "AT": "08:00:00"}
    sent = json.dumps(changes([*settings, "training.learning_rate=nan"]), allow_nan=False)
    assert json.loads(sent)["resources"]["time"] == "12:00:00"
    assert "is 'nan'" in problems_of(tmp_path, GOOD, "training.learning_rate=nan")["training.learning_rate"]


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('[training]\nscript = "train.py"\n[environment]\nsetup_file = "set/up.sh"\n')
    spec = read(file)
    assert spec.training.script == str(tmp_path / "train.py")
    assert spec.environment.setup_file == str(tmp_path / "set/up.sh")


def test_every_form_of_a_text_has_words() -> None:
    schema = json.dumps([JobSpec.model_json_schema(), Site.model_json_schema()])
    patterns = {pattern for name, pattern in vars(forms).items() if name.isupper() and name != "WORDS"}
    assert patterns == set(forms.WORDS)
    assert all(json.dumps(pattern) in schema for pattern in patterns - {forms.CHECKPOINT})  # which a query has
    assert schema.count('"pattern"') == sum(schema.count(f'"pattern": {json.dumps(pattern)}') for pattern in patterns)
