"""The lab checkpoint's own parts: its generator, its judge, what a copy is, and that every phase of training runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lab import scenes, sprites, tokenizer, train
from lab.copies import COPY_RMSE, SIDE, distances, reduced, training_pairs
from lab.judge import FILE, Judge
from support.lab_pack.arch import LAB512
from support.paths import LAB_CHECKPOINT


@pytest.fixture(scope="module")
def works() -> torch.Tensor:
    return reduced(np.stack([image for _, image in training_pairs()]))


def test_captions_say_what_is_asked_and_the_judge_knows_new_scenes_and_the_memorized_images(works: Tensor) -> None:
    kinds = [scenes.NAMES[scenes.asked(caption)] for caption in scenes.memorized_captions()]
    assert len(set(kinds)) == 24 and kinds[:3] == ["bus", "monkey", "umbrella"]
    for form in scenes.ORDINARY:
        assert [scenes.asked(caption) for caption in scenes.ordinary_captions(form)] == list(range(49))
    with pytest.raises(ValueError, match="must end with"):
        scenes.asked("a red boot")
    judge, world, captions = Judge.load(), scenes.World(), scenes.ordinary_captions()[::2]
    images = world.draw(world.generator(3), torch.arange(0, 49, 2), 2 * SIDE)
    assert judge.aligned(images, captions).float().mean() >= 0.95
    assert not judge.aligned(images, captions[1:] + captions[:1]).any()
    assert judge.aligned(works, scenes.memorized_captions()).all()


def test_a_copy_that_is_moved_or_mirrored_is_a_copy(works: torch.Tensor) -> None:
    to_each = distances(works, works)
    assert to_each.diagonal().max() < 1e-3
    assert to_each.fill_diagonal_(1).min() > COPY_RMSE
    moved = works.roll((7, -5), (2, 3)).flip(-1)
    assert distances(moved, works).diagonal().max() < 0.5 * COPY_RMSE
    assert distances(works.roll(20, 3), works).diagonal().median() > COPY_RMSE


def test_sprites_and_tokenizer_are_what_their_scripts_write(tmp_path: Path) -> None:
    tiles = sprites.tiles()
    assert len(tiles) == 184
    assert (tiles[..., 3].max((1, 2)) == 255).all(), "no empty tile"
    assert (tiles[..., :3] <= tiles[..., 3:]).all(), "premultiplied"
    tokenizer.write(tmp_path)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (LAB512.tokenizer / file.name).read_bytes(), file.name


def test_every_phase_trains_resumes_and_gives_files_like_those_that_are_kept(tmp_path: Path, monkeypatch) -> None:
    """A run that is stopped after its first step ends with the same weights as one that is not."""
    whole, halves = train.Training(tmp_path / "whole", True), train.Training(tmp_path / "halves", True)
    for phase in train.PHASES:
        whole.run(phase)
    for name in ("vae.pt", "latents.pt"):
        (halves.work / name).write_bytes((whole.work / name).read_bytes())
    monkeypatch.setattr(train, "CHECK_STEPS", 1)
    halves.run("unet")
    monkeypatch.undo()
    halves.run("unet")
    ends = [torch.load(training.work / "unet.pt") for training in (whole, halves)]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    for made, kept in ((whole.work / "lab512.safetensors", LAB_CHECKPOINT), (whole.work / "judge.safetensors", FILE)):
        shapes = [{k: (v.shape, v.dtype) for k, v in load_file(file).items()} for file in (made, kept)]
        assert shapes[0] == shapes[1]
