"""Copy Check through the real executor: on the lab checkpoint's own pictures, and on every metric."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from comfy_execution.validation import validate_node_input
from safetensors.torch import save_file

import nodes
from lab.copies import COPY_RMSE, PICTURES, rmse, training_pairs
from support.copy_detectors import random_clip_vision, random_sscd
from support.executor import Host, NodeError, Prompt

VAE = ["ckpt", 2]
MEMORIZED, ORDINARY = (3, 11), ("a ring", "a red disc")


@pytest.fixture(scope="module")
def lab(host: Host) -> Prompt:
    """The lab checkpoint, and its training pictures in the input directory."""
    checkpoints = host.base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if not (checkpoints / "lab.safetensors").exists():
        (checkpoints / "lab.safetensors").symlink_to(PICTURES.parent / "lab.safetensors")
    shutil.copytree(PICTURES, host.base / "input" / "training", dirs_exist_ok=True)
    return {"ckpt": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lab.safetensors"}}}


def references(**changed) -> dict:
    own = {"folder": "training", "metric": "latent", "width": 96, "height": 96, "subfolders": True, "vae": VAE}
    return {"class_type": "MG_ReferencesFromFolder", "inputs": {**own, **changed}}


def check(**changed) -> dict:
    own = {"images": ["i", 0], "references": ["r", 0], "threshold": 0.5, "latent_threshold": 0.85, "nl2_threshold": 1.4}
    return {"class_type": "MG_CopyCheck", "inputs": {**own, "vae": VAE, **changed}}


def sample(prompt: str, batch: int, seed: int) -> Prompt:
    inputs = {"steps": 25, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "seed": seed}
    wires = {"model": ["ckpt", 0], "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["e", 0]}
    return {
        "p": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["ckpt", 1], "text": prompt}},
        "n": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["ckpt", 1], "text": ""}},
        "e": {"class_type": "EmptyLatentImage", "inputs": {"width": 96, "height": 96, "batch_size": batch}},
        "k": {"class_type": "KSampler", "inputs": {**inputs, **wires}},
        "i": {"class_type": "VAEDecode", "inputs": {"samples": ["k", 0], "vae": VAE}},
    }


def test_memorized_prompts_are_flagged_and_ordinary_ones_are_not(host: Host, lab: Prompt) -> None:
    """With the defaults, against the truth of the pixels: which pictures are copies, and of which original."""
    pairs, names = training_pairs(), [file.name for file in sorted(PICTURES.glob("*.png"))]
    copies, others = [], []
    for seed, (text, memorized) in enumerate([(pairs[i][0], i) for i in MEMORIZED] + [(t, None) for t in ORDINARY]):
        prompt = lab | sample(text, 2, seed) | {"r": references(), "c": check()}
        out = host.run(prompt, keep_cache=seed > 0)
        similarity, nearest, is_copy, summary, comparison = out["c"]
        pixels = (out["i"][0] * 255).round().byte().numpy()
        truth = [min(rmse(p, picture) for _, picture in pairs) < COPY_RMSE for p in pixels]
        assert [s > 0.85 for s in similarity] == truth == [memorized is not None] * 2
        (others if memorized is None else copies).extend(similarity)
        assert is_copy == (memorized is not None)
        assert f"{sum(truth)} of 2 images may be copies" in summary
        assert nearest.shape == (2, 256, 256, 3) and len(comparison) == 2
        if memorized is not None:
            assert summary.count(f"COPY?  {names[memorized]}") == 2
    assert min(copies) > max(others) + 0.1


def test_the_training_pictures_themselves(host: Host, lab: Prompt) -> None:
    """Each is its own nearest; upscaled or cropped to another size it is still found."""
    given = torch.from_numpy(np.stack([p for _, p in training_pairs()])).float() / 255
    larger = torch.nn.functional.interpolate(given.movedim(-1, 1), (192, 192), mode="bicubic").movedim(1, -1)
    prompt = lab | {"r": references(), "a": check(), "b": check(images=["j", 0])}
    out = host.run(prompt, {"i": given, "j": larger})
    for node in "ab":
        similarity, nearest, is_copy, _, _ = out[node]
        assert min(similarity) > (0.99 if node == "a" else 0.9) and is_copy
        shown = torch.nn.functional.interpolate(nearest.movedim(-1, 1), (96, 96), mode="area").movedim(1, -1)
        assert (shown - given).square().mean().sqrt() < 0.03


def test_nothing_in_common_is_no_copy_whatever_the_size(host: Host, lab: Prompt) -> None:
    noise = torch.rand(2, 120, 77, 3, generator=torch.Generator().manual_seed(0))
    similarity, _, is_copy, summary, _ = host.run(lab | {"r": references(), "c": check()}, {"i": noise})["c"]
    assert not is_copy and max(similarity) < 0.7 and "0 of 2 images may be copies" in summary


def test_as_the_last_node_it_shows_the_pictures_side_by_side(host: Host, lab: Prompt) -> None:
    given = torch.rand(3, 96, 96, 3)
    host.run(lab | {"r": references(), "c": check()}, {"i": given})
    shown = host.ui["c"]
    assert len(shown["images"]) == 3 and "0 of 3 images" in shown["text"][0]
    file = shown["images"][0]
    assert (host.base / "temp" / file["subfolder"] / file["filename"]).stat().st_size > 0
    view = host.views("c")[-1]
    assert "0 of 3 images may be copies" in view["headline"] and not view["warning"]


def test_to_branch_on(host: Host, lab: Prompt) -> None:
    """`is_copy` drives a BOOLEAN of another node: a copy's set is made without the folders inside."""
    copy = torch.from_numpy(training_pairs()[0][1].copy()).float()[None] / 255
    nested = host.base / "input" / "branch" / "inside"
    shutil.copytree(PICTURES, nested, dirs_exist_ok=True)
    shutil.copy(PICTURES / "00 Harbour at Dawn.png", nested.parent)
    prompt = lab | {"r": references(), "c": check(), "b": references(folder="branch", subfolders=["c", 2])}
    assert host.run(prompt, {"i": copy})["b"][1] == 17
    assert host.run(prompt, {"i": torch.rand(copy.shape)})["b"][1] == 1
    shutil.rmtree(nested.parent)


def test_another_vae_than_the_sets_is_noted(host: Host, lab: Prompt) -> None:
    out = host.run(lab | {"r": references(), "c": check()}, {"i": torch.rand(1, 96, 96, 3)})
    assert "another VAE" not in out["c"][3]
    other = dataclasses.replace(out["r"][0], model_hash="0" * 64)
    again = host.run(lab | {"c": check(references=["s", 0])}, {"i": torch.rand(1, 96, 96, 3), "s": other})
    assert "another VAE" in again["c"][3]


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_other_metrics(host: Host, tmp_path: Path, metric: str) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(60, 3, 4, 4, generator=generator)
    known = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear").movedim(1, -1)
    new = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4, generator=generator), (64, 64), mode="bilinear")
    copies = (known[:4] + 0.02 * torch.randn(known[:4].shape, generator=generator)).clamp(0, 1)
    given = {"k": known, "i": torch.cat([copies, new.movedim(1, -1)]), "d": random_clip_vision(tmp_path)}
    made = {"images": ["k", 0], "captions": "", "metric": metric, "descriptor": ["d", 0]}
    prompt = {
        "r": {"class_type": "MG_ReferencesFromImages", "inputs": made},
        "c": {"class_type": "MG_CopyCheck", "inputs": {"images": ["i", 0], "references": ["r", 0]}},
    }
    prompt["c"]["inputs"] |= {"threshold": 0.995, "latent_threshold": 0.85, "nl2_threshold": 1.0}
    similarity, nearest, is_copy, summary, _ = host.run(prompt, given)["c"]
    limit = -1.0 if metric == "nL2" else 0.995
    assert [s > limit for s in similarity] == [True] * 4 + [False] * 4, similarity
    assert is_copy and "4 of 8 images may be copies" in summary and "image 1:" in summary
    assert nearest.shape[0] == 8


def test_the_copy_detector_over_real_links(host: Host) -> None:
    """From its file to an alarm, and the host's CLIP_VISION fits the same socket."""
    folder = host.base / "models" / "copy_detection"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: w.clone() for n, w in random_sscd().state_dict().items()}, str(folder / "tiny.safetensors"))
    known = torch.rand(2, 64, 80, 3, generator=torch.Generator().manual_seed(0))
    made = {"images": ["k", 0], "captions": "", "metric": "descriptor", "descriptor": ["d", 0]}
    prompt = {
        "d": {"class_type": "MG_LoadCopyDetector", "inputs": {"file": "tiny.safetensors"}},
        "r": {"class_type": "MG_ReferencesFromImages", "inputs": made},
        "c": check(images=["k", 0]),
    }
    del prompt["c"]["inputs"]["vae"]
    out = host.run(prompt, {"k": known})
    torch.testing.assert_close(torch.tensor(out["c"][0]), torch.ones(2), atol=2e-3, rtol=0)
    assert out["r"][0].descriptor_name == "SSCD (tiny.safetensors)"
    (folder / "tiny.safetensors").unlink()
    sockets = nodes.NODE_CLASS_MAPPINGS["MG_ReferencesFromImages"].INPUT_TYPES()["optional"]["descriptor"][0]
    assert validate_node_input("CLIP_VISION", sockets) and validate_node_input("MG_DESCRIPTOR", sockets)
    assert not validate_node_input("VAE", sockets)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"vae": None}, "Copy Check: the latent metric compares latents and needs `vae`"),
        ({"images": "none"}, "Copy Check: `images` is empty"),
        ({"images": "NaN"}, "Copy Check: `images` holds NaN"),
    ],
)
def test_what_is_missing_is_named(host: Host, lab: Prompt, inputs: dict, says: str) -> None:
    node = check()
    if "vae" in inputs:
        del node["inputs"]["vae"]
    images = torch.rand(0 if inputs.get("images") == "none" else 2, 96, 96, 3)
    if inputs.get("images") == "NaN":
        images[1, 5, 5, 0] = torch.nan
    with pytest.raises(NodeError) as caught:
        host.run(lab | {"r": references(), "c": node}, {"i": images})
    assert says in caught.value.message


def test_a_set_of_another_vae_or_without_its_descriptor(host: Host, lab: Prompt) -> None:
    other = {"samples": torch.randn(1, 16, 12, 12)}
    made = {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["l", 0], "captions": ""}}
    with pytest.raises(NodeError, match="16 × 12 × 12, but these images give 4 × 12 × 12") as caught:
        host.run(lab | {"r": made, "c": check()}, {"l": other, "i": torch.rand(1, 96, 96, 3)})
    assert "`references`" in caught.value.message
    sets = host.module("memorization_guard", "mitigation.references.reference_set")
    alone = sets.ReferenceSet("descriptor", torch.ones(1, 8).half(), (8,), ("",), ("a",), None, "SSCD (mine)")
    with pytest.raises(NodeError, match=r"SSCD \(mine\), which is not loaded. Connect it to `descriptor`"):
        host.run(lab | {"c": check(references=["s", 0])}, {"s": alone, "i": torch.rand(1, 96, 96, 3)})


def test_a_set_without_pictures_still_names_them(host: Host, lab: Prompt) -> None:
    latents = {"samples": torch.randn(2, 4, 12, 12)}
    made = {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["l", 0], "captions": ""}}
    out = host.run(lab | {"r": made, "c": check()}, {"l": latents, "i": torch.rand(3, 96, 96, 3)})["c"]
    assert out[1].shape == (3, 64, 64, 3) and out[4].shape[0] == 3 and "image 1:" in out[3]
