"""Image files of every kind that a training folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from memorization_guard.references import image_file, image_resize
from support.image_files import BROKEN, STRANGE, huge_png, make_broken, make_strange


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("images")
    make_strange(made)
    make_broken(made)
    return made


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_image_is_read_right(folder: Path, name: str) -> None:
    image = image_file.read_image(folder / name, 96)
    assert image.shape[-1] == 3 and image.dtype == torch.float32
    middle = image[image.shape[0] // 2, image.shape[1] // 2]
    torch.testing.assert_close(middle, torch.tensor(STRANGE[name]), atol=0.03, rtol=0)
    if name == "huge.png":
        assert 2 * 96 <= min(image.shape[:2]) <= 4 * 96
    if name == "turned.jpg":
        assert image.shape[:2] == (100, 60)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_says_why(folder: Path, name: str) -> None:
    with pytest.raises(image_file.ImageFileError, match=BROKEN[name]):
        image_file.read_image(folder / name, 96)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(folder: Path, monkeypatch) -> None:
    huge_png(folder / "bomb.png", 15_000, (0, 0, 0))
    for limit in (Image.MAX_IMAGE_PIXELS, None):  # other packs switch Pillow's own limit off
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(image_file.ImageFileError, match="pixels"):
            image_file.read_image(folder / "bomb.png", 96)


def test_another_format_under_a_known_name_never_reaches_its_decoder(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "really.gif")
    (folder / "really.gif").rename(folder / "gif.png")
    with pytest.raises(image_file.ImageFileError, match="not a PNG, JPEG or WebP"):
        image_file.read_image(folder / "gif.png", 96)


def test_captions(tmp_path: Path) -> None:
    for name, data in {
        "a.txt": b"\xef\xbb\xbf\r\n  first \t line \r\nsecond",
        "b.caption": "café".encode(),
        "c.txt": b"caf\xe9",
        "d.txt": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    said = [image_file.read_caption(tmp_path / f"{name}.png") for name in "abcde"]
    assert said == ["first line", "café", "caf�", "", ""]


def test_cover_fills_the_size_and_never_skews() -> None:
    image = torch.zeros(1, 50, 200, 3)
    image[:, :, 75:125] = 1  # a square in the middle
    square = image_resize.cover(image, (80, 80))
    assert square.shape == (1, 80, 80, 3)
    assert square.min() > 0.8
    assert image_resize.cover(image, (200, 50)) is image


def test_contain_keeps_the_whole_image() -> None:
    small = image_resize.contain(torch.ones(50, 200, 3), 64)
    assert small.shape == (64, 64, 3) and small.dtype == torch.uint8
    assert (small == 255).all(dim=-1).sum() == 64 * 16


def test_opaque() -> None:
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.5]).expand(1, 2, 2, 4)
    torch.testing.assert_close(image_resize.opaque(rgba)[0, 0, 0], torch.tensor([0.6, 0.7, 0.8]))
    assert image_resize.opaque(torch.full((1, 2, 2, 1), 1.5)).tolist() == torch.ones(1, 2, 2, 3).tolist()
