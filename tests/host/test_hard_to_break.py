"""Files, folders and disks as they must not be, images and captions of every kind: one is lost, and nothing else."""

import errno
import os
import random
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import comfy.sd
import pytest
import torch
from comfy.sd1_clip import SD1Tokenizer
from comfy.text_encoders.qwen_image import QwenImageTokenizer
from comfy.text_encoders.sd3_clip import SD3Tokenizer
from PIL import Image, ImageFile

from memorization_guard.adapter.conditioning import caption_tokens
from memorization_guard.adapter.memory import is_out_of_memory
from memorization_guard.mitigation.references import duplicates, sscd
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.mitigation.wording import clean, shown
from memorization_guard.references import caption_file, image_file, image_resize, reference_file, safe_file
from memorization_guard.references.caption_file import read_caption
from memorization_guard.references.image_file import read_image
from memorization_guard.references.image_folder import list_folder
from support.executor import Host
from support.graphs import node
from support.hostile_files import BROKEN, DAMAGED, STRANGE, make_broken, make_strange
from support.paths import PACK


def small_set(**changed) -> ReferenceSet:
    own = {"captions": ("a",), "names": ("a.png",), "features": torch.ones(1, 8).half(), "shape": (2, 2, 2)}
    return ReferenceSet(**{"metric": "latent", **own, **changed})


def test_texts_from_files_cannot_act(tmp_path: Path) -> None:
    assert clean("a\x1b[31mred\nb\u202egnp.exe\u2028c") == "a [31mred b gnp.exe c"
    assert clean("日本 é 👩\u200d🎨") == "日本 é 👩\u200d🎨"
    assert len(shown("x" * 10**6)) == 200
    (tmp_path / "a.txt").write_text("a \x1b]0;owned\x07 cat", encoding="utf-8")
    assert read_caption(tmp_path / "a.txt") == "a ]0;owned cat"
    (tmp_path / "verdict\nno copy.png").write_bytes(b"")
    listed = list_folder(tmp_path, subfolders=True)
    assert [listed.name(file) for file in listed.images] == ["verdict no copy.png"]


def test_a_folder_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, scan = tmp_path / "10_closed", os.scandir
    closed.mkdir()
    (tmp_path / "a.png").write_bytes(b"")

    def scandir(where: str):
        if Path(where) == closed:  # root may read everything, so that no permission could be taken from it
            raise PermissionError(errno.EACCES, "Permission denied", str(where))
        return scan(where)

    monkeypatch.setattr(os, "scandir", scandir)
    listed = list_folder(tmp_path, subfolders=True)
    assert len(listed.images) == 1
    assert listed.passed_over == [("10_closed", "the folder cannot be opened (Permission denied)")]


def test_many_savers_of_one_name_do_not_disturb_each_other(tmp_path: Path) -> None:
    foreign, abandoned = tmp_path / "mine.partial", tmp_path / f"{safe_file.TEMPORARY}0.partial"
    foreign.write_text("somebody's")
    abandoned.write_text("of a saver that was killed")
    os.utime(abandoned, (0, 0))
    errors: list[Exception] = []

    def save() -> None:
        try:
            for _ in range(20):
                reference_file.save_references(small_set(), tmp_path / "a.safetensors")
        except Exception as error:
            errors.append(error)

    savers = [threading.Thread(target=save) for _ in range(4)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert errors == []
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "mine.partial"]
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~safe_file.umask()


def test_a_file_that_changes_in_its_place_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    reference_file.save_references(small_set(), path)
    loaded = reference_file.load_references(path)
    with path.open("r+b") as file:  # as a synchronising program does
        file.seek(-64, os.SEEK_END)
        file.write(b"\0" * 64)
    assert torch.equal(loaded.features, torch.ones(1, 8).half())
    path.unlink()

    def full(tensors, path: str, metadata) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safe_file, "save_file", full)
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be written \(No space left on device\)"):
        reference_file.save_references(small_set(), path)
    assert list(tmp_path.iterdir()) == []


def test_memory_and_time_are_not_decided_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="thumbnails of 12000 × 12000"):
        small_set(thumbnails=torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(1, 12_000, 12_000, 3))
    huge = {f"layer1.0.conv{i}.weight": torch.zeros(1, 1, 1, 1).expand(64, 64, 1, 1) for i in (1, 2)}
    with pytest.raises(ValueError, match="larger than any SSCD"):
        sscd.sscd_from({**huge, "fc.weight": torch.zeros(1, 1).expand(400_000, 2048)})
    frames = torch.rand(3, 768).repeat_interleave(4000, dim=0) + torch.tensor([0.0, 1e-4]).repeat(6000)[:, None]
    began = time.monotonic()
    groups = duplicates.near_duplicates(frames)
    assert [len(group) for group in groups] == [4000] * 3 and time.monotonic() - began < 20
    with pytest.raises(KeyboardInterrupt):
        duplicates.near_duplicates(torch.rand(600, 768), on_block=Mock(side_effect=KeyboardInterrupt))
    for said in (  # on every device
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 12 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "MPS backend out of memory (MPS allocated: 9 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        "could not create a primitive",
    ):
        assert is_out_of_memory(RuntimeError(said)), said
    assert is_out_of_memory(MemoryError())
    for said in ("could not create a primitive descriptor for a convolution forward", "mat1 and mat2 shapes"):
        assert not is_out_of_memory(RuntimeError(said)), said
    assert not is_out_of_memory(ValueError("out of memory of any kind"))


def test_folders_that_have_not_changed_are_not_listed_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's /object_info asks for them, and the server answers nothing else meanwhile."""
    folders, root = host.module(PACK, "adapter.folders"), host.base / "input" / "many"
    for name in ("a/b/c", "a/d", ".hidden/e", "f"):
        (root / name).mkdir(parents=True)
    (root / "link").symlink_to(root / "a")
    expected = ["many", "many/a", "many/a/b", "many/a/b/c", "many/a/d", "many/f", "many/link"]
    assert [name for name in folders.input_folders() if name.startswith("many")] == expected
    for path in [root.parent, *root.parent.rglob("*")]:  # also what another test left there
        os.utime(path, (1e9, 1e9))
    folders.input_folders()
    listed, real = [], os.scandir
    monkeypatch.setattr(folders.os, "scandir", lambda path: listed.append(path) or real(path))
    assert [name for name in folders.input_folders() if name.startswith("many")] == expected
    assert listed == []
    (root / "a" / "new").mkdir()
    assert "many/a/new" in folders.input_folders()
    assert {Path(path).name for path in listed} == {"a", "new"}
    monkeypatch.setattr(folders, "MOST_FOLDERS", 3)
    assert len(folders.input_folders()) == 3
    shutil.rmtree(root)


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


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "L"])
def test_images_are_made_to_fit(tmp_path: Path, mode: str) -> None:
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
    for size in ((1000, 1), (1, 20_000)):  # a strip is cut before it is enlarged
        strip = torch.linspace(0, 1, max(size)).view(1, *size, 1).expand(-1, -1, -1, 3)
        began = time.monotonic()
        made = image_resize.cover(strip, (512, 512))
        assert made.shape == (1, 512, 512, 3) and time.monotonic() - began < 5
        assert made.mean() == pytest.approx(0.5, abs=0.01), "the middle of it"
    # An image of few bits is reduced before it is made larger.
    Image.new(mode, (4096, 2048), 1 if mode == "1" else 0).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 64).shape == (128, 256, 3)


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
