"""References from folders, images and latents, through the real executor."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch
from PIL import Image

from support import graphs
from support.executor import Host, NodeError, Prompt
from support.graphs import node
from support.graphs.checkpoint import copy_training_images, loader, place, training_images
from support.image_files import BROKEN, DAMAGED, GOOD, STRANGE, make_folder, scene
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


def test_the_training_images_become_a_set(host: Host, inputs: Path) -> None:
    references, count, report = host.run(from_folder("lab"))["r"]
    assert count == len(references) == 16
    assert references.metric == "latent" and references.shape == (4, 12, 12)
    assert references.features.dtype == torch.float16
    torch.testing.assert_close(references.features.float().norm(dim=1), torch.ones(16), atol=1e-3, rtol=0)
    assert references.names[3] == "03 Letters from Lisbon.png"
    assert references.captions[3] == (TRAINING_IMAGES / "03 Letters from Lisbon.txt").read_text().strip()
    assert references.thumbnails.shape == (16, 256, 256, 3)
    assert "16 references" in report and "16 with a caption" in report and "Duplicates" not in report


def test_the_latents_are_those_of_the_hosts_own_nodes(host: Host, inputs: Path) -> None:
    first = sorted(TRAINING_IMAGES.glob("*.png"))[0]
    shutil.copy(first, inputs / first.name)
    prompt = from_folder("lab") | {
        "i": node("LoadImage", image=first.name),
        "e": node("VAEEncode", pixels=["i", 0], vae=VAE),
        "l": node("MG_ReferencesFromLatents", latents=["e", 0], captions="x", vae=VAE),
        "p": graphs.from_images(captions="x", vae=VAE),
    }
    out = host.run(prompt)
    folder, latents, images = (out[n][0] for n in "rlp")
    assert torch.equal(latents.features[0], folder.features[0])
    assert torch.equal(images.features[0], folder.features[0])
    assert latents.captions == images.captions == ("x",)
    assert latents.thumbnails.shape == images.thumbnails.shape == (1, 256, 256, 3)


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


def test_folders_that_cannot_be_read(host: Host, folder: Path) -> None:
    folder.mkdir()
    assert "holds no images" in said(host, from_folder(folder.name))
    (folder / "a.txt").write_text("no image")
    assert "holds no images" in said(host, from_folder(folder.name))
    (folder / "a.png").write_bytes(b"")
    assert "can be read, e.g. a.png: empty file" in said(host, from_folder(folder.name))
    assert "is not in" in said(host, from_folder("no such folder"))
    for empty in (" ", "(choose one)"):
        assert "no `folder` is chosen" in said(host, from_folder(empty))


@pytest.mark.parametrize("outside", ["..", "../output", "lab/../..", "/", "a\x00b", "C:\\Windows\\..\\.."])
def test_a_folder_outside_is_refused(host: Host, inputs: Path, outside: str) -> None:
    error = fails(host, from_folder(outside))
    assert error.kind.endswith("GuardError")
    assert "leads out of" in error.message or "is not in" in error.message


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


@pytest.mark.parametrize(("metric", "needs"), [("latent", "`vae`"), ("descriptor", "a network")])
def test_what_a_metric_lacks_is_named(host: Host, inputs: Path, metric: str, needs: str) -> None:
    prompt = from_folder("lab", metric=metric)
    del prompt["r"]["inputs"]["vae"], prompt["ckpt"]
    assert said(host, prompt).startswith(f"References from Folder: the {metric} metric needs {needs}")


def test_captions_are_one_a_line(host: Host, inputs: Path) -> None:
    def run(captions: str, batch: int = 3):
        made = graphs.references(captions, "l")
        latents = {"samples": torch.randn(batch, 4, 8, 8, generator=torch.manual_seed(0))}
        return host.run({"r": made}, {"l": latents})["r"][0].captions

    assert run("") == ("", "", "")
    assert run("a ring\n") == ("a ring",) * 3
    assert run("a ring\n\na disc") == ("a ring", "", "a disc")
    with pytest.raises(NodeError, match="2 lines for 3 latents"):
        run("a\nb")


@pytest.mark.parametrize(
    ("latents", "says"),
    [
        ({}, "`latents` holds no samples"),
        ({"samples": torch.zeros(0, 4, 8, 8)}, "`latents` is empty"),
        ({"samples": torch.full((1, 4, 8, 8), torch.nan)}, "NaN"),
    ],
)
def test_latents_that_are_none(host: Host, latents: dict, says: str) -> None:
    made = graphs.references(latents="l")
    assert says in said(host, {"r": made}, {"l": latents})


class NoLatents:
    first_stage_model = torch.nn.Linear(1, 1)
    calls = 0

    def encode(self, pixels):
        self.calls += 1
        return torch.full((1, 4, 12, 12), torch.nan)


class Interrupted(NoLatents):
    def encode(self, pixels):
        comfy.model_management.interrupt_current_processing()
        return torch.ones_like(super().encode(pixels))


def test_a_vae_that_makes_nan_is_named_and_one_that_is_interrupted_stops(host: Host, inputs: Path) -> None:
    prompt, stopped = from_folder("lab", vae=["v", 0]), Interrupted()
    assert "--fp32-vae" in said(host, prompt, {"v": NoLatents()})
    assert fails(host, prompt, {"v": stopped}).kind == "interrupted" and stopped.calls == 1
