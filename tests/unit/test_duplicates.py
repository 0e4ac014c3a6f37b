"""Duplicated captions and near-duplicate images, and where the bound between the two lies."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from lab.scenes import NAMES, World
from memorization_guard.mitigation.references.duplicates import (
    NEAR,
    duplicate_captions,
    duplicate_features,
    near_duplicates,
)
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.references import builder
from memorization_guard.references import report as module
from support.small_lab import training_pairs


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(image)).float().div(255).permute(2, 0, 1)[None]


def compressed(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=30)
    return np.asarray(Image.open(file))


CHANGES = {
    "compressed": compressed,
    "half the size": lambda p: np.asarray(Image.fromarray(p).resize((48, 48))),
    "larger": lambda p: np.asarray(Image.fromarray(p).resize((384, 384))),
    "brighter": lambda p: np.asarray(ImageEnhance.Brightness(Image.fromarray(p)).enhance(1.1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_found(change: str) -> None:
    images = [image for _, image in training_pairs()]
    same = torch.cat([duplicate_features(tensor(p)) for p in images + [CHANGES[change](p) for p in images]])
    groups = near_duplicates(same)
    assert sorted(map(sorted, groups)) == [[i, i + 16] for i in range(16)]


def test_other_images_are_not() -> None:
    world = World()
    images = world.draw(world.generator(1), torch.arange(150) % len(NAMES), 96)
    different = torch.cat([duplicate_features(image[None]) for image in images])
    assert near_duplicates(different) == []
    distance = torch.cdist(different, different) / different.shape[1] ** 0.5
    assert distance.fill_diagonal_(1).min() > 1.5 * NEAR


def test_groups_are_connected_and_the_largest_comes_first() -> None:
    steps = torch.tensor([0.0, 5.0, 0.6, 1.2, 5.1, 9.0])[:, None]
    assert [sorted(g) for g in near_duplicates(steps, nearer_than=0.7)] == [[0, 2, 3], [1, 4]]
    captions = ["A red  ring", "", "a disc", "a Red ring ", "", "a disc\n", "a RED ring", "alone"]
    assert duplicate_captions(captions) == [[0, 3, 6], [2, 5]], "case and spacing make no difference"


def test_too_many_images_are_not_compared() -> None:
    """Four equal images, reported as duplicates only up to the limit."""
    references = ReferenceSet("latent", torch.ones(4, 8).half(), (2, 2, 2), ("",) * 4, tuple("abcd"))
    assert "- a, b, c, d" in module.report(references, duplicate_features=[torch.zeros(2)] * 4)
    text = module.report(references, duplicate_features=None)
    assert f"more than {builder.MOST_COMPARED} images" in text and "a, b" not in text
    few, many = (builder.ReferenceSetBuilder(None, "node", builder.MOST_COMPARED + i) for i in (0, 1))  # type: ignore[arg-type]
    assert few.duplicate_features == [] and many.duplicate_features is None
