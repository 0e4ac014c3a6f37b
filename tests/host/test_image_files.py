"""Image and caption files of every kind that a training folder holds."""

import random
import shutil
from pathlib import Path

import comfy.sd
import pytest
import torch
from comfy.sd1_clip import SD1Tokenizer
from comfy.text_encoders.qwen_image import QwenImageTokenizer
from comfy.text_encoders.sd3_clip import SD3Tokenizer
from PIL import Image, ImageFile

from memorization_guard.adapter.conditioning import caption_tokens
from memorization_guard.references import caption_file, image_file, image_resize
from support.executor import Host
from support.graphs import node
from support.image_files import BROKEN, DAMAGED, STRANGE, make_broken, make_strange

PIECES = ["(", ")", "((", "\\", ":", "1.3", "0", "miku", " ", "\n", ", ", "embedding:name", " embedding:name", "\0\1"]


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
@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])  # other packs switch Pillow's own limit off
def test_a_broken_image_says_why(folder: Path, name: str, damaged: bool, limit: int | None, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(image_file.ImageFileError, match=BROKEN[name]):
        image_file.read_image(folder / name, 96, damaged)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_is_read_as_load_image_does(folder: Path, host: Host, name: str) -> None:
    shutil.copy(folder / name, host.base / "input")
    theirs = host.run({"i": node("LoadImage", image=name)})["i"][0]
    with pytest.raises(image_file.DamagedImageError, match="corrupt"):
        image_file.read_image(folder / name, 96)
    read = image_file.read_image(folder / name, 96, damaged=True)
    assert read.shape == theirs[0].shape
    assert (read[:16] - theirs[0][:16]).abs().mean() < 0.02  # newer hosts decode JPEG, and fill the rest, differently
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"\xef\xbb\xbf\r\n  first \t line \r\nsecond", "first line"),
        ("a.txt", b"", ""),
        ("a.txt", b"x" + "é".encode() * 40_000, "x" + "é" * 32_767),  # 65,536 bytes end inside a letter
        ("a.caption", "café".encode("utf-16"), "café"),
        ("a.txt", b"\xfe\xff" + "café".encode("utf-16-be"), "café"),
        ("a.txt", "café".encode("utf-32"), "café"),
        ("a.txt", "a castle".encode("utf-16-le"), "neither UTF-8 nor UTF-16"),
        ("a.txt", "собака".encode("cp1251"), "neither UTF-8 nor UTF-16"),
        ("a.txt", "一个女孩".encode("gbk"), "neither UTF-8 nor UTF-16"),
        ("a.JSON", b'{"tags": 1, "caption": "a\\nb"}', "a"),
        ("a.json", '{"text": "café"}'.encode("utf-16"), "café"),
        ("a.json", b'{"score": 3}', ""),
        ("a.json", b'{"caption": "\\ud800"}', "not valid JSON"),
        ("a.json", b"[" * 60_000, "not valid JSON"),
        ("a.json", b'{"n": ' + b"9" * 9_000 + b"}", "not valid JSON"),
        ("a.json", b'"' + b"x" * 70_000 + b'"', "larger than 65536 bytes"),
    ],
)
def test_a_caption_is_read_right_or_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    try:
        assert caption_file.read_caption(tmp_path / name) == said
    except caption_file.CaptionFileError as error:
        assert said and said in str(error)


def test_images_are_made_to_fit() -> None:
    image = torch.zeros(1, 50, 200, 3)
    image[:, :, 75:125] = 1  # a square in the middle
    square = image_resize.cover(image, (80, 80))
    assert square.shape == (1, 80, 80, 3) and square.min() > 0.8
    assert image_resize.cover(image, (200, 50)) is image
    small = image_resize.contain(torch.ones(50, 200, 3), 64)
    assert small.shape == (64, 64, 3) and small.dtype == torch.uint8
    assert (small == 255).all(dim=-1).sum() == 64 * 16
    rgba = torch.tensor([0.2, 0.4, 0.6, 0.5]).expand(1, 2, 2, 4)
    torch.testing.assert_close(image_resize.opaque(rgba)[0, 0, 0], torch.tensor([0.6, 0.7, 0.8]))
    assert image_resize.opaque(torch.full((1, 2, 2, 1), 1.5)).tolist() == torch.ones(1, 2, 2, 3).tolist()


@pytest.mark.parametrize("kind", [SD1Tokenizer, SD3Tokenizer, QwenImageTokenizer])
def test_all_of_a_caption_is_text(kind: type, tmp_path: Path) -> None:
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = kind(embedding_directory=str(tmp_path)), {}
    held = [part for part in vars(clip.tokenizer).values() if hasattr(part, "tokenizer")]
    rng, template = random.Random(0), getattr(clip.tokenizer, "llama_template", "{}")
    for text in ["embedding:name", *("".join(rng.choices(PIECES, k=9)) for _ in range(99))]:
        trained = [part.tokenizer(template.format(text.replace("\0", "")))["input_ids"] for part in held]
        for own, (found,) in zip(trained, caption_tokens(clip, text).values(), strict=True):
            assert [token for token, _ in found][: len(own)] == own and {weight for _, weight in found} == {1.0}, text
