"""Saved sets and copy detectors: what is read back, and what is refused."""

import io
import json
import math
import pickle
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memorization_guard.mitigation.wording import clean, shown
from support import hostile_files
from support.copy_detectors import Planted, random_clip_vision
from support.executor import Host, Prompt
from support.graphs import from_images, node
from support.graphs.checkpoint import base, ksampler
from support.outcomes import fails

HOSTILE = ["'; DROP TABLE captions; --", "{'a': __import__('os')}", "\x00\u202e\ud800", "line\nbreak", "𝕌nicode"]
NAMES = ["../out", "/absolute/out", "a/../../out", "", "  ", "a\\..\\..\\out", "a:b", "..", "a/ /b", ".x"]
NAMES += ["con", "a/NUL", "lpt1.old", "a.", "b /c", "deep/" * 40 + "x"]


def emptied(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.rglob("*.*"):
        if file.is_file():  # other tests leave folders, such as the audits'
            file.unlink()
    return folder


@pytest.fixture
def sets(host: Host) -> Path:
    return emptied(host.base / "models" / "memorization_references")


@pytest.fixture
def detectors(host: Host) -> Path:
    return emptied(host.base / "models" / "copy_detection")


@pytest.fixture
def given(clip_vision: Any) -> dict[str, Any]:
    return {"descriptor": clip_vision, "i": torch.rand(3, 40, 56, 3, generator=torch.Generator().manual_seed(1))}


def save(name: str = "mine", overwrite: bool = False, captions: str = "a\nb\nc") -> Prompt:
    kept = node("MG_SaveReferences", references=["r", 0], name=name, overwrite=overwrite)
    return {"r": from_images("descriptor", captions=captions), "s": kept}


def load(file: str | None = "mine.safetensors", **inputs: Any) -> Prompt:
    return {"l": node("MG_LoadReferences", file=file, **inputs)}


def detector(file: str | None) -> Prompt:
    return {"d": node("MG_LoadCopyDetector", file=file)}


def said(host: Host, prompt: Prompt, given: dict | None = None) -> str:
    return fails(host, prompt, given).message


def test_a_set_is_read_back_as_it_was_and_its_hostile_captions_are_data(host: Host, sets: Path, given: dict) -> None:
    saved = host.run(save("loras/my style"), given)["s"][0]
    loaded, count, report = host.run(load("loras/my style.safetensors", descriptor=["descriptor", 0]), given)["l"]
    assert count == 3 and "3 references, metric descriptor" in report
    for name in ("metric", "shape", "captions", "names", "descriptor_name", "descriptor_hash", "alpha", "k"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert torch.equal(loaded.features, saved.features) and torch.equal(loaded.thumbnails, saved.thumbnails)
    assert loaded.descriptor.fingerprint == saved.descriptor_hash
    assert [p.name for p in (sets / "loras").iterdir()] == ["my style.safetensors"]
    hostile = replace(saved, captions=tuple(HOSTILE[:3]), names=tuple(HOSTILE[2:]))
    host.module("memorization_guard", "references.reference_file").save_references(hostile, sets / "a.safetensors")
    loaded = host.run(load("a.safetensors"))["l"][0]
    assert list(loaded.captions) == list(map(clean, HOSTILE[:3])) and list(loaded.names) == list(
        map(shown, HOSTILE[2:])
    )
    with safe_open(str(sets / "a.safetensors"), "pt") as file:
        assert not any("DROP" in value for value in file.metadata().values())


def test_nothing_is_overwritten_unasked_and_a_new_file_is_read_again(host: Host, sets: Path, given: dict) -> None:
    host.run(save(), given)
    before, first = (sets / "mine.safetensors").read_bytes(), host.run(load())["l"][0]
    assert host.run(load(), keep_cache=True)["l"][0] is first
    assert "turn on overwrite" in said(host, save(captions="x"), given)
    assert (sets / "mine.safetensors").read_bytes() == before
    host.run(save(captions="a much longer caption for all", overwrite=True), given, keep_cache=True)
    assert host.run(load(), keep_cache=True)["l"][0].captions == ("a much longer caption for all",) * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_leave_the_folder(host: Host, sets: Path, given: dict[str, Any], name: str) -> None:
    before = set(host.base.rglob("*.safetensors"))
    assert "`name`" in said(host, save(name), given)
    assert set(host.base.rglob("*.safetensors")) == before and not Path("/absolute").exists()


def test_a_link_cannot_leave_the_folder(host: Host, sets: Path, given: dict[str, Any], tmp_path: Path) -> None:
    host.run(save(), given)
    (sets.parent / "made.safetensors").write_bytes(b"x")  # whether it exists is not told
    told = [said(host, load(f"../{name}.safetensors")).replace(name, "NAME") for name in ("made", "gone")]
    assert told[0] == told[1] and "leads out of" in told[0]
    (sets / "mine.safetensors").rename(tmp_path / "private.safetensors")
    (sets / "link.safetensors").symlink_to(tmp_path / "private.safetensors")
    (sets / "out").symlink_to(tmp_path, target_is_directory=True)
    assert "leads out of" in said(host, load("link.safetensors"))
    assert "`name`" in said(host, save("out/new"), given)
    assert "leads out of" in said(host, load("../../../../../../../../etc/hostname"))
    assert "is not in" in said(host, load("nothing.safetensors"))
    (sets / "out").unlink()


def facts(**changed) -> dict[str, str]:
    own = {"kind": "memorization_guard.references", "version": "1", "metric": "latent", "shape": "[2, 2, 2]"}
    return {**own, "alpha": "0.5", "k": "50", **changed}


def texts(*lines: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(lines).encode()), dtype=torch.uint8)


def parts(**changed) -> dict[str, torch.Tensor]:
    return {"features": torch.ones(1, 8).half(), "captions": texts("a"), "names": texts("b"), **changed}


@pytest.mark.parametrize(
    ("tensors", "metadata", "says"),
    [
        (parts(), facts(version="2"), "newer version of this pack (format 2)"),
        (parts(), {"format": "pt"}, "Save References did not write it"),
        ({"captions": texts("a")}, facts(), "damaged (KeyError"),
        (parts(), facts(shape="[3, 3, 3]"), "do not fit the shape"),
        (parts(), facts(shape="12"), "damaged"),
        (parts(), facts(metric="lpips"), "unknown metric"),
        (parts(), facts(shape="[8]"), "metric latent cannot have the shape (8,)"),
        (parts(), facts(shape="[8]", metric="nL2"), "metric nL2 cannot have the shape (8,)"),
        (parts(), facts(metric="descriptor"), "metric descriptor cannot have the shape (2, 2, 2)"),
        (parts(), facts(metric="nL2"), "at least 51; there are 1"),
        (parts(features=torch.full((1, 8), torch.nan).half()), facts(), "hold NaN or infinite values"),
        (parts(features=torch.ones(1, 8)), facts(), "float16"),
        (parts(features=torch.zeros(0, 8).half()), facts(), "at least one row"),
        (parts(thumbnails=torch.zeros(1, 3, 8, 8)), facts(), "uint8"),
        (parts(captions=texts("a", "b")), facts(), "as many captions"),
        (parts(captions=texts("a")[:-1].clone()), facts(), "damaged"),
        (parts(captions=torch.tensor([255], dtype=torch.uint8)), facts(), "damaged"),
        (parts(captions=torch.ones(3)), facts(), "damaged"),
    ],
)
def test_a_file_that_is_no_set_is_refused(host: Host, sets: Path, tensors: dict, metadata: dict, says: str) -> None:
    save_file(tensors, str(sets / "bad.safetensors"), metadata=metadata)
    message = said(host, load("bad.safetensors"))
    assert says in message and message.startswith("Load References: `file` 'bad.safetensors' cannot be used")


class Trap:
    def __reduce__(self):
        return print, ("the trap was sprung",)


def test_a_file_that_only_claims_to_be_safetensors(host: Host, sets: Path, capsys) -> None:
    path, archive = sets / "claims.safetensors", io.BytesIO()
    torch.save({"features": Trap()}, archive)
    for content in (pickle.dumps(Trap()), b"hello " * 100, b"", archive.getvalue()):
        path.write_bytes(content)
        assert "not a safetensors file" in said(host, load("claims.safetensors"))
    assert "sprung" not in capsys.readouterr().out


def test_a_descriptor_that_did_not_make_the_set(host: Host, sets: Path, given: dict[str, Any], tmp_path: Path) -> None:
    given["e"] = random_clip_vision(tmp_path, seed=1)
    host.run(save(), given)
    assert "the set was made with CLIP vision" in said(host, load(descriptor=["e", 0]), given)
    assert host.run(load())["l"][0].descriptor is None
    facts, tensors = hostile_files.parts((sets / "mine.safetensors").read_bytes())
    facts["descriptor_hash"] = facts["descriptor_hash"][:64]  # all that 0.1.0 saved
    (sets / "mine.safetensors").write_bytes(hostile_files.pack(facts, tensors))
    assert host.run(load(descriptor=["descriptor", 0]), given)["l"][0].descriptor is not None
    assert "unknown whether `descriptor` made it" in said(host, load(descriptor=["e", 0]), given)


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_a_set_of_another_length_than_its_metric_gives_is_named(
    host: Host, sets: Path, checkpoint: dict[str, Any], given: dict[str, Any], metric: str
) -> None:
    """A file that somebody made by hand; only the network that it names can tell."""
    shape = {"nL2": [3, 2, 2], "descriptor": [4]}[metric]
    host.run(save(), given)
    made, count, size = host.run(load())["l"][0], 51, math.prod(shape)
    texts_of = {name: texts(*["a"] * count) for name in ("captions", "names")}
    claimed = facts(metric=metric, shape=str(shape), descriptor_hash=made.descriptor_hash)
    file = sets / "mine.safetensors"
    save_file({"features": torch.ones(count, size).half(), **texts_of}, str(file), metadata=claimed)
    steer = node("MG_AMGGuidance", model=["m", 0], references=["l", 0], vae=["vae", 0], deduplication=0.0)
    steered = {**base(1), **load(descriptor=["descriptor", 0]), "a": steer, "k": ksampler(model=["a", 0])}
    message = said(host, steered, {**checkpoint, **given})
    assert f"`references` holds {size} numbers for each reference" in message


def test_a_missing_choice_is_explained_and_a_branch_beside_it_does_not_hide_that(host: Host, detectors: Path) -> None:
    """A node that fails in the host's validation is left out without a word where another output can run."""
    other = {"other": node("EmptyLatentImage", width=64, height=64, batch_size=1)}
    error = fails(host, detector("sscd_disc_mixup.torchscript.pt") | other)
    assert error.kind.endswith("GuardError")
    for word in ("sscd_disc_mixup.torchscript.pt", str(detectors), "facebookresearch/sscd-copy-detection"):
        assert word in error.message
    # An empty folder leaves the widget without a value, and the frontend sends none.
    none = {"r": node("MG_ReferencesFromFolder", folder=None)}
    assert "SSCD comes from" in said(host, detector(None)) and "no `folder` is chosen" in said(host, none)
    assert "Choose a file" in said(host, load(None)) and "Choose a file" in said(host, load("(choose one)"))


def test_a_detector_that_is_none_or_holds_code(host: Host, detectors: Path, tmp_path: Path, capsys) -> None:
    (detectors / "text.pt").write_text("hello")
    torch.save({"weights": Trap()}, detectors / "pickle.pt")
    save_file({"a": torch.zeros(1)}, str(detectors / "other.safetensors"))
    (detectors / "text.safetensors").write_text("hello")
    target, attack = tmp_path / "planted.py", detectors / "sscd_disc_mixup.torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for name in ("text.pt", "pickle.pt", "other.safetensors", "text.safetensors"):
            message = said(host, detector(name))
            assert name in message and "SSCD comes from" in message
        torch.jit.save(torch.jit.script(Planted(str(target))), str(attack))
        target.unlink(missing_ok=True)
        assert "code in the file, which is not run" in said(host, detector(attack.name))
        assert not target.exists()
        torch.jit.load(str(attack))
    assert target.exists(), "the archive is a real attack"
    assert "sprung" not in capsys.readouterr().out
    assert load_file(detectors / "other.safetensors")
