"""The lab's judge: right on images it never saw, and its distances behave as distances."""

import numpy as np
import pytest

from lab import flawed, scenes, vae
from lab.judge import COLOURS, SHAPES, Judge, answer, asked, diversity, frechet, reference


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def held_out() -> tuple[np.ndarray, list[str]]:
    """Scenes through the VAE, from a seed that training does not use, every shape in every colour."""
    captions = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
    return vae.through(reference(captions, len(captions), seed=77)), captions


def test_captions_say_what_is_asked():
    assert asked("a ring") == ("ring", None)
    assert asked("an orange star") == ("star", "orange")
    assert asked("Garden of Clocks, a red triangle") == ("triangle", "red")
    assert [asked(p.caption) for p in scenes.memorized()] == [
        (p.scene.shape, p.scene.colour) for p in scenes.memorized()
    ]
    with pytest.raises(ValueError, match="boat"):
        asked("a red boat")


def test_decoded_scenes_are_aligned_with_their_captions(judge, held_out):
    images, captions = held_out
    found = judge.alignment(images, captions)
    assert found.shape.mean() >= 0.95
    assert found.colour.mean() >= 0.98
    np.testing.assert_array_equal(found.aligned, found.shape * found.colour)


def test_decoded_scenes_are_not_aligned_with_other_captions(judge, held_out):
    images, captions = held_out
    other_shape = captions[2 * len(COLOURS) :] + captions[: 2 * len(COLOURS)]
    other_colour = captions[1:] + captions[:1]  # the next colour, and every seventh time the next shape too
    assert judge.alignment(images, other_shape).shape.mean() <= 0.05
    assert judge.alignment(images, other_colour).colour.mean() <= 0.05


def test_colour_is_asked_only_if_named(judge, held_out):
    images, captions = held_out
    found = judge.alignment(images, [f"a {asked(c)[0]}" for c in captions])
    assert np.isnan(found.colour).all()
    np.testing.assert_array_equal(found.aligned, found.shape)


def test_blobs_and_empty_scenes_are_no_shape(judge):
    rng = np.random.default_rng(78)
    blobs = np.stack([flawed.blob(rng, COLOURS[i % len(COLOURS)]) for i in range(56)])
    empty = np.stack([flawed.empty(rng) for _ in range(16)])
    assert (answer(judge.judge(blobs).shapes) == len(SHAPES)).mean() >= 0.8
    assert (answer(judge.judge(empty).colours) == len(COLOURS)).mean() >= 0.9


def test_rough_shapes_are_mostly_known(judge):
    rng = np.random.default_rng(83)
    asked_for = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    found = judge.judge(np.stack([flawed.rough(rng, *a) for a in asked_for]))
    assert (answer(found.shapes) == [SHAPES.index(s) for s, _ in asked_for]).mean() >= 0.75
    assert (answer(found.colours) == [COLOURS.index(c) for _, c in asked_for]).mean() >= 0.95


@pytest.mark.parametrize("wrong", [np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 96, 96, 3), np.float32)])
def test_other_sizes_and_types_are_refused(judge, wrong):
    with pytest.raises(ValueError, match="uint8"):
        judge.judge(wrong)


def test_frechet_of_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 8))
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, a + 0.5) == pytest.approx(8 * 0.25)
    assert frechet(a, a + 1.0) == pytest.approx(8)
    assert frechet(a, 3 * a) == pytest.approx(np.square(2 * a.mean(0)).sum() + 4 * a.var(0, ddof=1).sum())


def test_frechet_grows_as_images_get_worse(judge, held_out):
    images, captions = held_out
    target = judge.judge(reference(captions, 3 * len(captions), seed=79)).features
    noise = np.random.default_rng(82).normal(size=images.shape)
    worse = [np.clip(images + level * noise, 0, 255).astype(np.uint8) for level in (0, 20, 40, 80)]
    distances = [frechet(judge.judge(p).features, target) for p in worse]
    assert distances == sorted(distances)
    assert distances[-1] > 2 * distances[0]


def test_diversity_is_the_mean_distance():
    assert diversity(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)
    assert diversity(np.ones((4, 2, 3, 3))) == 0
    with pytest.raises(ValueError, match="two"):
        diversity(np.ones((1, 5)))


def test_images_of_one_prompt_are_more_diverse_than_near_copies(judge):
    free = reference(["a red ring"], 12, seed=80)
    rng = np.random.default_rng(81)
    copies = np.clip(free[:1] + rng.normal(0, 8, (12, *free.shape[1:])), 0, 255).astype(np.uint8)
    assert diversity(judge.judge(copies).features) < 0.3 * diversity(judge.judge(free).features)
