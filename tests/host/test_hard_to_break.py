"""Files, folders and disks as they must not be: one image or one sentence is lost, and nothing else."""

import errno
import os
import shutil
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from memorization_guard.adapter.memory import is_out_of_memory
from memorization_guard.mitigation.references import duplicates, sscd
from memorization_guard.mitigation.references.reference_set import ReferenceSet
from memorization_guard.mitigation.wording import clean, shown
from memorization_guard.references import reference_file, safe_file
from memorization_guard.references.caption_file import read_caption
from memorization_guard.references.image_file import read_image
from memorization_guard.references.image_folder import list_folder
from memorization_guard.references.image_resize import cover
from support.executor import Host
from support.paths import PACK


def small_set(**changed) -> ReferenceSet:
    own = {"captions": ("a",), "names": ("a.png",), "features": torch.ones(1, 8).half(), "shape": (2, 2, 2)}
    return ReferenceSet(**{"metric": "latent", **own, **changed})


@pytest.mark.parametrize("size", [(1000, 1), (1, 20_000)])
def test_a_strip_is_cut_before_it_is_enlarged(size: tuple[int, int]) -> None:
    strip = torch.linspace(0, 1, max(size)).view(1, *size, 1).expand(-1, -1, -1, 3)
    began = time.monotonic()
    made = cover(strip, (512, 512))
    assert made.shape == (1, 512, 512, 3) and time.monotonic() - began < 5
    assert made.mean() == pytest.approx(0.5, abs=0.01), "the middle of it"


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "L"])
def test_an_image_of_few_bits_is_reduced_before_it_is_made_larger(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4096, 2048), 1 if mode == "1" else 0).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 64).shape == (128, 256, 3)


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


def test_a_file_does_not_decide_how_much_memory_is_taken() -> None:
    with pytest.raises(ValueError, match="thumbnails of 12000 × 12000"):
        small_set(thumbnails=torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(1, 12_000, 12_000, 3))
    huge = {"layer1.0.conv1.weight": torch.zeros(1, 1, 1, 1).expand(64, 64, 1, 1)}
    with pytest.raises(ValueError, match="larger than any SSCD"):
        sscd.sscd_from({**huge, "fc.weight": torch.zeros(1, 1).expand(400_000, 2048)})


def test_out_of_memory_is_known_on_every_device() -> None:
    for said in (
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


def test_thousands_of_frames_that_are_alike_take_seconds_and_can_be_stopped() -> None:
    frames = torch.rand(3, 768).repeat_interleave(4000, dim=0) + torch.tensor([0.0, 1e-4]).repeat(6000)[:, None]
    began = time.monotonic()
    groups = duplicates.near_duplicates(frames)
    assert [len(group) for group in groups] == [4000] * 3 and time.monotonic() - began < 20
    with pytest.raises(KeyboardInterrupt):
        duplicates.near_duplicates(torch.rand(600, 768), on_block=Mock(side_effect=KeyboardInterrupt))


def test_folders_that_have_not_changed_are_not_listed_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's /object_info asks for them, and the server answers nothing else meanwhile."""
    folders, root = host.module(PACK, "adapter.folders"), host.base / "input" / "many"
    for name in ("a/b/c", "a/d", ".hidden/e", "f"):
        (root / name).mkdir(parents=True)
    (root / "link").symlink_to(root / "a")
    expected = ["many", "many/a", "many/a/b", "many/a/b/c", "many/a/d", "many/f", "many/link"]
    assert [name for name in folders.input_folders() if name.startswith("many")] == expected
    for path in [root.parent, root, *root.rglob("*")]:
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
