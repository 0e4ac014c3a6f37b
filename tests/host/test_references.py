"""References from folders, images and latents, through the real executor."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from support import graphs
from support.executor import Host, Prompt
from support.graphs import node
from support.graphs.checkpoint import copy_training_images, loader, place, training_images
from support.hostile_files import BROKEN, DAMAGED, GOOD, STRANGE, make_folder, scene
from support.outcomes import fails
from support.paths import SMALL_CHECKPOINT
from support.small_lab import TRAINING_IMAGES

VAE = ["ckpt", 2]
LEFT_OUT = ("@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "a-masklabel.png", "b-condlabel.png", "d.txt", "e.caption")


@pytest.fixture(scope="module")
def inputs(host: Host) -> Path:
    """The host's input directory, with the small lab's training images in a folder."""
    place(host, "checkpoints", SMALL_CHECKPOINT)
    return training_images(host, "lab").parent


@pytest.fixture
def folder(inputs: Path) -> Iterator[Path]:
    """A folder of the input directory, not made yet."""
    yield inputs / "one"
    shutil.rmtree(inputs / "one")


def from_folder(folder: str, **changed: Any) -> Prompt:
    return {"ckpt": loader(), "r": graphs.from_folder(folder, **{"vae": VAE, **changed})}


def said(host: Host, prompt: Prompt, given: dict | None = None) -> str:
    return fails(host, prompt, given).message


def test_the_training_images_become_a_set_of_the_hosts_own_latents(host: Host, inputs: Path) -> None:
    first = sorted(TRAINING_IMAGES.glob("*.png"))[0]
    shutil.copy(first, inputs / first.name)
    prompt = from_folder("lab") | {
        "i": node("LoadImage", image=first.name),
        "e": node("VAEEncode", pixels=["i", 0], vae=VAE),
        "l": node("MG_ReferencesFromLatents", latents=["e", 0], captions="x", vae=VAE),
        "p": graphs.from_images(captions="x", vae=VAE),
    }
    out = host.run(prompt)
    references, count, report = out["r"]
    assert count == len(references) == 16
    assert references.metric == "latent" and references.shape == (4, 12, 12)
    assert references.features.dtype == torch.float16
    torch.testing.assert_close(references.features.float().norm(dim=1), torch.ones(16), atol=1e-3, rtol=0)
    assert references.names[3] == "03 Letters from Lisbon.png"
    assert references.captions[3] == (TRAINING_IMAGES / "03 Letters from Lisbon.txt").read_text().strip()
    assert references.thumbnails.shape == (16, 256, 256, 3)
    assert "16 references" in report and "16 with a caption" in report and "Duplicates" not in report
    for one in (out["l"][0], out["p"][0]):
        assert torch.equal(one.features[0], references.features[0])
        assert one.captions == ("x",) and one.thumbnails.shape == (1, 256, 256, 3)


def test_200_images_of_every_kind_become_a_set(host: Host, folder: Path) -> None:
    make_folder(folder)
    assert GOOD + len(STRANGE) + len(BROKEN) + len(DAMAGED) == 200
    references, count, report = host.run(from_folder(folder.name, metric="nL2"))["r"]
    assert count == len(references) == GOOD + len(STRANGE) + len(DAMAGED)
    assert torch.isfinite(references.features).all()
    assert set(references.names) & set(BROKEN) == set()
    assert {*STRANGE, *DAMAGED} <= set(references.names)
    assert "read as Load Image reads them:\n- cut.jpg\n- cut.png\n- wide gamut.png\n" in report + "\n"
    for name, reason in BROKEN.items():
        assert any(name in line and reason in line for line in report.splitlines()), name
    assert f"Left out {len(BROKEN)} files:" in report
    assert sum(map(bool, references.captions)) == GOOD and references.captions[9] == "image number 9"


def test_a_folder_as_trainers_and_disks_leave_it(host: Host, folder: Path) -> None:
    """Masks and thumbnails are no training images; captions go by several names; one in cp1251 and a pipe are named."""
    hidden = ["__MACOSX/._a.png", ".trash/a.png", "._b.png"]
    for name in ["a.PNG", *(f"{stem}.png" for stem in "bcde"), *LEFT_OUT[:3], *hidden]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TRAINING_IMAGES / "00 Harbour at Dawn.png", folder / name)
    for name, text in (("a.png.txt", "a girl"), ("B.TXT", "a boy"), ("c.json", '{"text": "a dog"}'), ("._b.txt", "no")):
        (folder / name).write_text(text)
    (folder / "e.caption").write_bytes("девушка".encode("cp1251"))
    os.mkfifo(folder / "d.txt")
    references, _, report = host.run(from_folder(folder.name))["r"]
    found = dict(zip(references.names, references.captions, strict=True))
    assert found == {"a.PNG": "a girl", "b.png": "a boy", "c.png": "a dog", "d.png": "", "e.png": ""}
    assert "Left out 5 files" in report and all(f"- {name}: " in report for name in LEFT_OUT)
    assert "3 with a caption" in report and "e.caption: neither UTF-8" in report


def test_duplicates_are_reported(host: Host, folder: Path) -> None:
    shutil.copytree(TRAINING_IMAGES, folder)
    Image.open(folder / "04 Copper Lantern.png").save(folder / "again.jpg", quality=40)
    (folder / "again.txt").write_text((folder / "07 Garden of Clocks.txt").read_text().upper())
    report = host.run(from_folder(folder.name))["r"][2]
    assert "2 × Garden of Clocks" in report
    assert "- 04 Copper Lantern.png, again.jpg" in report
    assert "make a model memorize" in report


@pytest.mark.parametrize(
    ("change", "read_again"),
    [
        (lambda folder: None, False),
        (lambda folder: (folder / "notes.md").write_text("not ours"), False),
        (lambda folder: (folder / "00 Harbour at Dawn.txt").write_text("another caption"), True),
        (lambda folder: (folder / "00 Harbour at Dawn.txt").unlink(), True),
        (lambda folder: os.utime(folder / "00 Harbour at Dawn.png", (1, 1)), True),
        (lambda folder: shutil.copy(folder / "01 Winter Orchard.png", folder / "new.png"), True),
    ],
    ids=["nothing", "no image", "caption", "no caption", "image", "another image"],
)
def test_an_edited_folder_is_read_again(host: Host, folder: Path, change: Callable, read_again: bool) -> None:
    copy_training_images(folder, 2)
    first = host.run(from_folder(folder.name))["r"][0]
    change(folder)
    assert (host.run(from_folder(folder.name), keep_cache=True)["r"][0] is not first) == read_again


def test_subfolders_sizes_and_the_latent_that_sets_them(host: Host, folder: Path) -> None:
    copy_training_images(folder / "10_paintings", 2)
    shutil.copy(TRAINING_IMAGES / "00 Harbour at Dawn.png", folder / "top.png")
    assert host.run(from_folder(folder.name))["r"][1] == 3
    alone, count, _ = host.run(from_folder(folder.name, subfolders=False, width=64, height=128))["r"]
    assert count == 1 and alone.shape == (4, 16, 8)
    latent = {"samples": torch.zeros(1, 4, 10, 14)}
    assert host.run(from_folder(folder.name, size_of=["l", 0]), {"l": latent})["r"][0].shape == (4, 10, 14)


def test_nl2_needs_51_images_and_no_vae(host: Host, folder: Path) -> None:
    folder.mkdir()
    for i in range(50):
        scene(random.Random(i)).save(folder / f"{i}.png")
    assert "at least 51; there are 50" in said(host, from_folder(folder.name, metric="nL2"))
    scene(random.Random(50)).save(folder / "50.png")
    prompt = from_folder(folder.name, metric="nL2")
    del prompt["r"]["inputs"]["vae"], prompt["ckpt"]
    references = host.run(prompt)["r"][0]
    assert references.metric == "nL2" and references.shape == (3, 64, 64) and references.neighbours == 50


def test_folders_that_cannot_be_read(host: Host, inputs: Path, folder: Path) -> None:
    folder.mkdir()
    assert "holds no images" in said(host, from_folder(folder.name))
    (folder / "a.txt").write_text("no image")
    assert "holds no images" in said(host, from_folder(folder.name))
    (folder / "a.png").write_bytes(b"")
    assert "can be read, e.g. a.png: empty file" in said(host, from_folder(folder.name))
    assert "is not in" in said(host, from_folder("no such folder"))
    for empty in (" ", "(choose one)"):
        assert "no `folder` is chosen" in said(host, from_folder(empty))
    for outside in ("..", "../output", "lab/../..", "/", "a\x00b", "C:\\Windows\\..\\.."):
        error = fails(host, from_folder(outside))
        assert error.kind.endswith("GuardError")
        assert "leads out of" in error.message or "is not in" in error.message
    for metric, needs in (("latent", "`vae`"), ("descriptor", "a network")):
        alone = node("MG_ReferencesFromFolder", folder="lab", metric=metric)
        assert said(host, {"r": alone}).startswith(f"References from Folder: the {metric} metric needs {needs}")


def test_links_that_lead_out_are_not_followed(host: Host, folder: Path, tmp_path: Path) -> None:
    copy_training_images(tmp_path / "private", 2)
    folder.symlink_to(tmp_path / "private", target_is_directory=True)
    assert "leads out of" in said(host, from_folder(folder.name))
    folder.unlink()
    copy_training_images(folder, 2)
    (folder / "secret.png").symlink_to(tmp_path / "private" / "00 Harbour at Dawn.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    shutil.copy(folder / "01 Winter Orchard.png", folder / "captioned.png")
    (folder / "captioned.txt").symlink_to(tmp_path / "private" / "00 Harbour at Dawn.txt")
    references, count, report = host.run(from_folder(folder.name))["r"]
    assert count == 3
    assert "- secret.png: a link that leads out" in report and "- gone.png: " in report
    assert "- captioned.txt: a link that leads out" in report
    assert references.captions[references.names.index("captioned.png")] == ""


def test_captions_are_one_a_line_and_latents_are_latents(host: Host, inputs: Path) -> None:
    prompt = lambda captions: {"r": graphs.references(captions, "l")}  # noqa: E731
    given = {"l": {"samples": torch.randn(3, 4, 8, 8, generator=torch.manual_seed(0))}}
    for captions, wanted in (
        ("", ("", "", "")),
        ("a ring\n", ("a ring",) * 3),
        ("a ring\n\na disc", ("a ring", "", "a disc")),
    ):
        assert host.run(prompt(captions), given)["r"][0].captions == wanted
    assert "2 lines for 3 latents" in said(host, prompt("a\nb"), given)
    nan = torch.full((1, 4, 8, 8), torch.nan)
    vae = SimpleNamespace(first_stage_model=torch.nn.Linear(1, 1), encode=lambda pixels: nan)
    assert "--fp32-vae" in said(host, from_folder("lab", vae=["v", 0]), {"v": vae})
    for latents, says in (
        ({}, "`latents` holds no samples"),
        ({"samples": torch.zeros(0, 4, 8, 8)}, "`latents` is empty"),
        ({"samples": nan}, "NaN"),
    ):
        assert says in said(host, prompt(""), {"l": latents})
