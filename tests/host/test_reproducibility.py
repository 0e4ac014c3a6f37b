"""The same inputs give the same bytes; a batch, a part of it and its samples alone give the same samples.

On the exact model, whose own arithmetic gives every row the same bits however many rows there are; real networks do
not, so that nothing of this could be told from rounding there. Samplers that draw noise on the way are left out:
the host draws theirs for the batch as a whole.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import nodes as host_nodes
from lab.copies import PICTURES
from support.copy_detectors import random_sscd
from support.executor import Host, Prompt
from support.graphs import LATENT, MODEL, RULE, amg, deferred, detector, ksampler, lab, optimizer, references
from support.lab_graphs import LAB, advanced, node
from support.lab_pack import exact

BATCH, STEPS, SOME = 4, 12, [3, 1, 1]
ROUNDING = 1e-5  # of a matrix product with the references, whose sums depend on the number of rows; 7e-7 was seen
PLAN = {"mode": "dynamic", "pre_escape_cfg": 0.0, "start_percent": 0.5, **RULE}
LINKS = {k: v for k, v in ksampler()["inputs"].items() if isinstance(v, list)}
SHORT = {"steps": STEPS}
FILE = "reproducible.safetensors"
GUIDER = node("MG_DeferredCFGGuider", cfg=7.0, **{k: LINKS[k] for k in ("model", "positive", "negative")}, **PLAN)
PATCH = node("MG_DeferredCFG", model=MODEL, **PLAN)
THROUGH = {"model": ["n", 0], **SHORT}  # a sampler behind the node `n`


def noise(method: str, **changed: Any) -> Prompt:
    """An optimizer, and the latents that begin with its noise."""
    return {"n": optimizer(method, **changed), "out": deferred("off", noise=["n", 0], steps=1)}


SAMPLED: dict[str, Prompt] = {  # `out` gives one sample for each row of the latent
    "deferral, dynamic": {"out": deferred(**SHORT)},
    "deferral, static": {"out": deferred("static", **SHORT)},
    "deferral, opposite guidance": {"out": deferred(pre_escape_cfg=-2.0, rule="local minimum", **SHORT)},
    "deferral as a model patch": {"n": PATCH, "out": ksampler(**THROUGH)},
    "deferral as a guider": {"n": GUIDER, **advanced(["n", 0], LINKS, STEPS)},
    "AMG": {"refs": references(), "n": amg(), "out": ksampler(**THROUGH)},
    "AMG and deferral": {"refs": references(), "n": amg(), "out": deferred(**THROUGH)},
    "detector, then its curve": {"n": detector(**SHORT), "out": deferred(curve=["n", 3], **SHORT)},
    "noise, per-sample": noise("per-sample", max_iterations=40),
    "noise, batch-wise": noise("batch-wise", sharpness_radius=5.0),
    "noise, search": noise("search", candidates=4),
}


def sampled(host: Host, name: str, latent: dict[str, Any]) -> dict[str, list[Any]]:
    """The outputs of a prompt of SAMPLED on this latent; its samples as `out`."""
    prompt = {
        key: node(n["class_type"], **{i: ["given latent", 0] if v == LATENT else v for i, v in n["inputs"].items()})
        for key, n in SAMPLED[name].items()
    }
    made = host.run({"lab": lab(1), **prompt}, {"works": {"samples": exact.x_mem()}, "given latent": latent})
    return {**made, "out": (made["out"] if "out" in made else made["custom"])[0]["samples"]}


def rows(index: list[int]) -> dict[str, Any]:
    return {"samples": torch.zeros(len(index), *exact.SHAPE), "batch_index": index}


def same(found: Tensor, wanted: Tensor, name: str) -> None:
    torch.testing.assert_close(found, wanted, atol=ROUNDING if name == "AMG" else 0.0, rtol=0.0, equal_nan=True)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_batch_a_part_of_it_and_its_samples_alone(host: Host, name: str) -> None:
    whole = sampled(host, name, {"samples": torch.zeros(BATCH, *exact.SHAPE)})
    assert not any(torch.equal(whole["out"][0], other) for other in whole["out"][1:])
    part = sampled(host, name, rows(SOME))
    same(part["out"], whole["out"][SOME], name)
    for i in range(BATCH):
        same(sampled(host, name, rows([i]))["out"], whole["out"][[i]], name)
    if name.startswith("noise"):
        for fact in ("before", "after", "iterations"):
            same(getattr(part["n"][1], fact), getattr(whole["n"][1], fact)[SOME], name)
    if name.startswith("detector"):
        curve, other = whole["n"][3], part["n"][3]
        assert torch.equal(other.transition, curve.transition[SOME]) and len(set(curve.transition.tolist())) > 1
        measured = ~other.d.isnan()  # it stops with the last escape of the batch
        same(other.d[measured], curve.d[SOME][measured], name)


@pytest.mark.parametrize("name", ["deferral, dynamic", "detector, then its curve", "noise, per-sample", "AMG"])
def test_the_hosts_part_of_a_batch_of_masked_pictures(host: Host, name: str) -> None:
    """LatentFromBatch hands on the pictures, the masks and the places of the noises."""
    draw = torch.Generator().manual_seed(3)
    pictures = torch.randn(BATCH, *exact.SHAPE, generator=draw)
    whole = {"samples": pictures, "noise_mask": (torch.rand(BATCH, 1, 64, 64, generator=draw) > 0.2).float()}
    cut = node("LatentFromBatch", samples=["whole", 0], batch_index=1, length=2)
    part = host.run({"cut": cut}, {"whole": whole})["cut"][0]
    assert part["batch_index"] == [1, 2]
    same(sampled(host, name, part)["out"], sampled(host, name, whole)["out"][1:3], name)


def alike(value: Any) -> Any:
    """What two equal outputs have in common, to the last bit."""
    if isinstance(value, Tensor):
        return tuple(value.shape), str(value.dtype), value.detach().cpu().numpy().tobytes()
    if hasattr(value, "fingerprint"):
        return value.fingerprint
    if dataclasses.is_dataclass(value):
        return {f.name: alike(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: alike(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [alike(v) for v in value]
    if hasattr(value, "generate_noise"):
        return alike(vars(value))
    if isinstance(value, str | int | float) or value is None:
        return repr(value)
    return type(value).__name__  # a MODEL or a GUIDER: what it samples is compared


LIMITS = {"threshold": 0.5, "latent_threshold": 0.5, "nl2_threshold": 1.4}
PIXELS = node("MG_ReferencesFromImages", images=["pictures", 0], captions="a ring", metric="nL2")
CHECK = node("MG_CopyCheck", images=["copies", 0], references=["n", 0], **LIMITS)
EVERY_NODE: dict[str, Prompt] = {
    "MG_NoiseOptimizer": SAMPLED["noise, per-sample"],
    "MG_BasinEscapeDetector": SAMPLED["detector, then its curve"],
    "MG_DeferredCFGKSampler": SAMPLED["deferral, dynamic"],
    "MG_DeferredCFGGuider": SAMPLED["deferral as a guider"],
    "MG_DeferredCFG": SAMPLED["deferral as a model patch"],
    "MG_AMGGuidance": SAMPLED["AMG"],
    "MG_Calibrate": {
        "n": node(
            "MG_Calibrate", model=MODEL, clip=["clip", 0], latent_image=LATENT, prompts="ordinary\na ring", noise_seed=1
        )
    },
    "MG_PlotCurve": {"n": detector(**SHORT), "out": node("MG_PlotCurve", curve=["n", 3], quantity="pull")},
    "MG_ReferencesFromFolder": {
        "n": node(
            "MG_ReferencesFromFolder",
            folder="training",
            metric="latent",
            width=64,
            height=64,
            subfolders=True,
            vae=["vae", 0],
        )
    },
    "MG_ReferencesFromImages": {"n": PIXELS},
    "MG_ReferencesFromLatents": {"refs": references("a ring")},
    "MG_SaveReferences": {
        "refs": references(),
        "n": node("MG_SaveReferences", references=["refs", 0], name="reproducible", overwrite=True),
    },
    "MG_LoadReferences": {"n": node("MG_LoadReferences", file=FILE)},
    "MG_LoadCopyDetector": {"n": node("MG_LoadCopyDetector", file=FILE)},
    "MG_CopyCheck": {"n": PIXELS, "out": CHECK},
}


@pytest.fixture(scope="module")
def given(host: Host) -> dict[str, Any]:
    """What the prompts above are given, with the files that they need in their places."""
    for folder in ("copy_detection", "memorization_references"):
        (host.base / "models" / folder).mkdir(parents=True, exist_ok=True)
    weights = {n: w.clone() for n, w in random_sscd().state_dict().items()}
    save_file(weights, str(host.base / "models" / "copy_detection" / FILE))
    shutil.copytree(PICTURES, host.base / "input" / "training", dirs_exist_ok=True)
    draw = torch.Generator().manual_seed(5)
    pictures = torch.rand(52, 32, 32, 3, generator=draw)
    near = pictures[:3] * 0.9 + 0.1 * torch.rand(3, 32, 32, 3, generator=draw)
    with torch.inference_mode():
        vae = comfy.sd.load_state_dict_guess_config(load_file(LAB), output_clip=False)[2]
    made = {"works": {"samples": exact.x_mem()}, "pictures": pictures, "copies": near, "vae": vae}
    host.run(EVERY_NODE["MG_SaveReferences"], made)
    assert (host.base / "models" / "memorization_references" / FILE).is_file()
    return made | {"clip": exact.TextEncoder()}


@pytest.mark.parametrize("name", EVERY_NODE)
def test_the_same_inputs_twice(host: Host, given: dict[str, Any], name: str) -> None:
    """In two runs that share nothing: the executor forgets everything in between."""
    first, second = (host.run({"lab": lab(2), **EVERY_NODE[name]}, given) for _ in range(2))
    ours = [key for key, n in EVERY_NODE[name].items() if n["class_type"] == name]
    assert ours and all(first[key] is not second[key] for key in ours)
    for key in EVERY_NODE[name]:
        assert alike(first[key]) == alike(second[key]), key


def test_no_node_is_left_out(host: Host) -> None:
    assert set(EVERY_NODE) == {name for name in host_nodes.NODE_CLASS_MAPPINGS if name.startswith("MG_")}


def test_a_picture_is_checked_as_it_would_be_alone(host: Host, given: dict[str, Any]) -> None:
    prompt = {"n": PIXELS, "out": CHECK}
    whole = host.run(prompt, given)["out"]
    for i in range(len(given["copies"])):
        alone = host.run(prompt, given | {"copies": given["copies"][i : i + 1]})["out"]
        torch.testing.assert_close(torch.tensor(alone[0]), torch.tensor(whole[0][i : i + 1]), atol=ROUNDING, rtol=0.0)
        assert torch.equal(alone[1][0], whole[1][i]), "the nearest reference"


def test_files_hold_the_same(host: Host, given: dict[str, Any]) -> None:
    file: Path = host.base / "models" / "memorization_references" / FILE
    before = contents(file)
    file.unlink()
    host.run(EVERY_NODE["MG_SaveReferences"], given)
    assert contents(file) == before


def contents(file: Path) -> tuple[dict[str, str], dict[str, list]]:
    """The metadata, which safetensors writes in any order, and the tensors."""
    with safe_open(str(file), "pt") as opened:
        return opened.metadata(), {name: opened.get_tensor(name).tolist() for name in opened.keys()}  # noqa: SIM118
