"""Images and tokens from folders of the user's: what a sample is follows from its index, and bad ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lockstep_worker import data
from lockstep_worker.data.images import RATIO, Images, centre_box, crop_box
from lockstep_worker.data.tokens import Tokens
from lockstep_worker.errors import DataError
from lockstep_worker.recipe import GPTSizes, Recipe
from support.pictures import folder_of_pictures, picture, truncate


class TestImages:
    def test_a_sample_follows_from_the_seed_the_epoch_and_its_index_alone(self, tmp_path: Path) -> None:
        folder = folder_of_pictures(tmp_path)
        images = Images(folder, size=32, seed=5)
        assert (images.train, images.held_out, images.classes) == (12, 6, 2)
        pixels, classes = images.train_batch(torch.arange(12), epoch=3)
        assert (pixels.shape, pixels.dtype, classes.tolist()) == ((12, 3, 32, 32), torch.float32, [0] * 6 + [1] * 6)
        order = torch.tensor([7, 2, 11])
        assert torch.equal(Images(folder, size=32, seed=5).train_batch(order, epoch=3)[0], pixels[order])
        assert not torch.equal(images.train_batch(torch.arange(12), epoch=4)[0], pixels)
        assert not torch.equal(Images(folder, size=32, seed=6).train_batch(torch.arange(12), epoch=3)[0], pixels)
        held_out, _ = images.held_out_batch(torch.arange(6))
        assert torch.equal(Images(folder, size=32, seed=6).held_out_batch(torch.arange(6))[0], held_out)

    def test_pixels_are_the_files_centred_and_scaled(self, tmp_path: Path) -> None:
        folder = folder_of_pictures(tmp_path)
        from PIL import Image

        for colour, expected in ((0, -2.1179), (255, 2.2489)):
            Image.new("RGB", (60, 60), (colour, 0, 0)).save(folder / "validation" / "cat" / "000.jpg", quality=100)
            pixels, _ = Images(folder, size=32, seed=0).held_out_batch(torch.tensor([0]))
            assert pixels[0, 0].mean() == pytest.approx(expected, abs=0.05)
            assert pixels[0, 2].mean() == pytest.approx(-0.406 / 0.225, abs=0.05)

    def test_grey_and_large_pictures_and_capital_endings_are_read(self, tmp_path: Path) -> None:
        from PIL import Image

        folder = folder_of_pictures(tmp_path)
        Image.new("L", (500, 20), 100).save(folder / "train" / "cat" / "000.JPEG")
        picture(folder / "train" / "cat" / "0000.jpg", 3, (2400, 1600))
        (folder / "train" / "cat" / ".hidden.jpg").write_text("no picture")
        (folder / "train" / "notes.txt").write_text("no class")
        images = Images(folder, size=32, seed=1)
        assert images.train == 14
        assert torch.isfinite(images.train_batch(torch.arange(14))[0]).all()

    def test_a_broken_picture_ends_the_training_or_is_skipped(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        folder = folder_of_pictures(tmp_path)
        truncate(folder / "train" / "cat" / "002.jpg")
        (folder / "validation" / "dog" / "001.jpg").write_text("no picture")
        images = Images(folder, size=32, seed=5)
        with pytest.raises(DataError, match=r'cat/002\.jpg: cannot be decoded as a JPEG: .*[Tt]runcated.*"skip"'):
            images.train_batch(torch.arange(12))
        images = Images(folder, size=32, seed=5, skip_broken=True)
        pixels, classes = images.train_batch(torch.tensor([2, 3, 2]))
        assert classes.tolist() == [0, 0, 0]
        assert not torch.equal(pixels[0], pixels[1]), "the next picture in its place, cut as the broken one would be"
        held_out, classes = images.held_out_batch(torch.tensor([3, 4, 5]))
        assert (len(held_out), classes.tolist()) == (2, [1, 1])
        assert [Path(path).name for path in images.broken.found] == ["002.jpg", "001.jpg"]
        assert capfd.readouterr().err.count("lockstep: skipped ") == 2, "each is named once"

    def test_a_file_that_has_gone_is_not_taken_for_a_broken_one(self, tmp_path: Path) -> None:
        images = Images(folder_of_pictures(tmp_path), size=32, seed=5, skip_broken=True)
        (tmp_path / "train" / "cat" / "000.jpg").unlink()
        with pytest.raises(DataError, match=r"cat/000\.jpg: cannot be read: No such file"):
            images.train_batch(torch.tensor([0]))

    def test_where_nothing_is_whole_the_training_ends(self, tmp_path: Path) -> None:
        folder = folder_of_pictures(tmp_path, classes=("cat",), train=2, held_out=1)
        for path in (folder / "train" / "cat").iterdir():
            truncate(path)
        with pytest.raises(DataError, match="none of its 2 images can be decoded"):
            Images(folder, size=32, seed=5, skip_broken=True).train_batch(torch.tensor([0]))

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda folder: folder.rename(folder.with_name("gone")), "train: cannot be read: No such file"),
            (lambda folder: (folder / "validation").rename(folder / "val"), "validation: cannot be read: No such"),
            (lambda folder: (folder / "train" / "eel").mkdir(), r"train: 'eel' has no file that ends in \.jpg or \.jp"),
            (lambda folder: picture(folder / "validation" / "eel" / "0.jpg", 0), "has 'eel', which is not among the 2"),
            (lambda folder: [(folder / "train" / name).rename(folder / name) for name in ("cat", "dog")], "no folders"),
        ],
    )
    def test_a_folder_that_is_not_what_it_should_be_is_told_before_any_picture_is_read(
        self, tmp_path: Path, spoil: Any, words: str
    ) -> None:
        folder = folder_of_pictures(tmp_path / "pictures")
        spoil(folder)
        with pytest.raises(DataError, match=words):
            Images(folder, size=32, seed=0)

    def test_a_recipe_says_size_and_classes_and_copies_have_one_fingerprint(self, tmp_path: Path) -> None:
        one = folder_of_pictures(tmp_path / "one")
        other = folder_of_pictures(tmp_path / "other")
        recipe = Recipe("vgg16", "images", data_path=str(one), image_size=48, classes=2)
        images = data.load(recipe, 1)
        assert images.train_batch(torch.tensor([0]))[0].shape == (1, 3, 48, 48)
        assert data.load(recipe, 1, other).fingerprint() == images.fingerprint()
        (other / "train" / "cat" / "000.jpg").unlink()
        assert data.load(recipe, 1, other).fingerprint() != images.fingerprint()
        with pytest.raises(DataError, match=r"has 2 classes in train/, and training\.classes says 3"):
            data.load(Recipe("vgg16", "images", data_path=str(one), classes=3), 1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 2**63))
def test_a_crop_lies_within_its_picture(width: int, height: int, key: int) -> None:
    left, upper, right, lower = crop_box(width, height, np.random.Generator(np.random.Philox(key=key)))
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    wide, high = right - left, lower - upper
    assert wide <= high * RATIO[1] + 1
    assert high <= wide / RATIO[0] + 1
    left, upper, right, lower = centre_box(width, height)
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    assert right - left == lower - upper


class TestTokens:
    @staticmethod
    def folder(folder: Path, kind: type[np.unsignedinteger[Any]] = np.uint16, count: int = 50, most: int = 20) -> Path:
        for name, seed in (("train.bin", 0), ("validation.bin", 1)):
            np.random.default_rng(seed).integers(0, most, count).astype(kind).tofile(folder / name)
        return folder

    def test_a_sample_is_a_piece_of_its_file_and_what_follows(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        tokens = Tokens(folder, vocabulary=20, context=8)
        assert (tokens.train, tokens.held_out, tokens.classes) == (6, 6, 20)
        inputs, targets = tokens.train_batch(torch.tensor([5, 0]))
        raw = np.fromfile(folder / "train.bin", np.uint16).tolist()
        assert inputs.tolist() == [raw[40:48], raw[0:8]]
        assert targets.tolist() == [raw[41:49], raw[1:9]]
        assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
        held_out, _ = tokens.held_out_batch(torch.tensor([0]))
        assert held_out[0].tolist() == np.fromfile(folder / "validation.bin", np.uint16)[:8].tolist()

    @pytest.mark.parametrize("count", [9, 16, 17, 18, 50])
    def test_every_token_behind_the_first_is_foretold_once(self, tmp_path: Path, count: int) -> None:
        tokens = Tokens(self.folder(tmp_path, count=count), vocabulary=20, context=8)
        _, targets = tokens.train_batch(torch.arange(tokens.train))
        raw = np.fromfile(tmp_path / "train.bin", np.uint16).tolist()
        assert targets.flatten().tolist() == raw[1 : 1 + tokens.train * 8]
        assert count - 1 - targets.numel() < 8, "the rest is shorter than a sample"

    def test_a_large_vocabulary_has_four_bytes_a_token_unless_the_spec_says_otherwise(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path, np.uint32)
        recipe = Recipe("gpt", "tokens", data_path=str(folder), gpt=GPTSizes(vocabulary=70_000, context=8))
        assert data.load(recipe, 1).train == 6
        assert Tokens(folder, vocabulary=20, context=8, type_name="uint32").train == 6
        assert Tokens(folder, vocabulary=20, context=8).train == 12

    def test_a_token_beyond_the_vocabulary_is_named_with_its_place(self, tmp_path: Path) -> None:
        tokens = Tokens(self.folder(tmp_path), vocabulary=5, context=8)
        raw = np.fromfile(tmp_path / "train.bin", np.uint16)
        place = 16 + int(np.argmax(raw[16:25] >= 5))
        with pytest.raises(DataError, match=rf"train\.bin: token {place} is {raw[place]}, beyond the vocabulary of 5"):
            tokens.train_batch(torch.tensor([2]))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, r"train\.bin: cannot be read: No such file"),
            (b"\0" * 33, r"has 33 bytes, which are no whole tokens of 2; see training\.token_type"),
            (b"\0" * 16, r"has 8 tokens, and one sample needs 9 \(training\.gpt\.context"),
            (b"", r"has 0 tokens, and one sample needs 9"),
        ],
    )
    def test_a_file_that_holds_no_samples_is_told(self, tmp_path: Path, content: bytes | None, words: str) -> None:
        self.folder(tmp_path)
        (tmp_path / "train.bin").unlink()
        if content is not None:
            (tmp_path / "train.bin").write_bytes(content)
        with pytest.raises(DataError, match=words):
            Tokens(tmp_path, vocabulary=20, context=8)
