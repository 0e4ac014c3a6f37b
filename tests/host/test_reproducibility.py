"""The same inputs give the same bytes; a batch, a part of it and its samples alone give the same samples."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from support import every_node, graphs
from support.every_node import EVERY_NODE, SET
from support.executor import Host, Prompt
from support.lab_pack import exact

BATCH, STEPS, SOME = 4, 12, [3, 1, 1]
ROUNDING = 1e-5  # of a matrix product with the references, whose sums depend on the number of rows; 7e-7 was seen
SHORT = {"steps": STEPS}
THROUGH = {"model": ["n", 0], **SHORT}  # a sampler behind the node `n`


def noise(method: str, **changed: Any) -> Prompt:
    """An optimizer, and the latents that begin with its noise."""
    return {"n": graphs.optimizer(method, **changed), "out": graphs.deferred("off", noise=["n", 0], steps=1)}


SAMPLED: dict[str, Prompt] = {  # `out` gives one sample for each row of the latent
    "deferral, dynamic": {"out": graphs.deferred(**SHORT)},
    "deferral, static": {"out": graphs.deferred("static", **SHORT)},
    "deferral, opposite guidance": {"out": graphs.deferred(pre_escape_cfg=-2.0, rule="local minimum", **SHORT)},
    "deferral as a model patch": {"n": graphs.patch(), "out": graphs.ksampler(**THROUGH)},
    "deferral as a guider": {"n": graphs.guider(), **graphs.custom(["n", 0], **SHORT)},
    "AMG": {"refs": graphs.references(), "n": graphs.amg(), "out": graphs.ksampler(**THROUGH)},
    "AMG and deferral": {"refs": graphs.references(), "n": graphs.amg(), "out": graphs.deferred(**THROUGH)},
    "detector, then its curve": {"n": graphs.detector(**SHORT), "out": graphs.deferred(curve=["n", 3], **SHORT)},
    "noise, per-sample": noise("per-sample", max_iterations=40),
    "noise, batch-wise": noise("batch-wise", sharpness_radius=5.0),
    "noise, search": noise("search", candidates=4),
}


def sampled(host: Host, name: str, latent: dict[str, Any]) -> dict[str, list[Any]]:
    """The outputs of a prompt of SAMPLED on this latent; its samples as `out`."""
    prompt = {
        key: graphs.node(
            n["class_type"], **{i: ["given latent", 0] if v == graphs.LATENT else v for i, v in n["inputs"].items()}
        )
        for key, n in SAMPLED[name].items()
    }
    made = host.run({"lab": graphs.lab(1), **prompt}, {"works": {"samples": exact.x_mem()}, "given latent": latent})
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
def test_the_hosts_part_of_a_batch_of_masked_images(host: Host, name: str) -> None:
    """LatentFromBatch hands on the images, the masks and the places of the noises."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(BATCH, *exact.SHAPE, generator=draw)
    whole = {"samples": images, "noise_mask": (torch.rand(BATCH, 1, 64, 64, generator=draw) > 0.2).float()}
    cut = graphs.node("LatentFromBatch", samples=["whole", 0], batch_index=1, length=2)
    part = host.run({"cut": cut}, {"whole": whole})["cut"][0]
    assert part["batch_index"] == [1, 2]
    same(sampled(host, name, part)["out"], sampled(host, name, whole)["out"][1:3], name)


def alike(value: Any) -> Any:
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


@pytest.fixture(scope="module")
def given(host: Host, vae: Any) -> dict[str, Any]:
    return every_node.prepare(host, vae)


@pytest.mark.parametrize("name", EVERY_NODE)
def test_the_same_inputs_twice(host: Host, given: dict[str, Any], name: str) -> None:
    """In two runs that share nothing: the executor forgets everything in between."""
    file: Path = host.base / "models" / "memorization_references" / f"{SET}.safetensors"
    first, written = every_node.run(host, EVERY_NODE[name], given), contents(file)
    second = every_node.run(host, EVERY_NODE[name], given)
    assert first["n"] is not second["n"] and contents(file) == written
    for key in EVERY_NODE[name]:
        assert alike(first[key]) == alike(second[key]), key
    if name == "MG_CopyCheck":  # an image is checked as it would be alone
        prompt, images = {"refs": every_node.IMAGES, "n": every_node.CHECK}, given["copies"][:2]
        parts = (images, images[:1], images[1:])
        whole, *alone = (every_node.run(host, prompt, given | {"copies": some})["n"] for some in parts)
        for i, one in enumerate(alone):
            torch.testing.assert_close(torch.tensor(one[0]), torch.tensor(whole[0][i : i + 1]), atol=ROUNDING, rtol=0.0)
            assert torch.equal(one[1][0], whole[1][i]), "the nearest reference"


def contents(file: Path) -> tuple[dict[str, str], dict[str, list]]:
    """The metadata, which safetensors writes in any order, and the tensors."""
    with safe_open(str(file), "pt") as opened:
        return opened.metadata(), {name: opened.get_tensor(name).tolist() for name in opened.keys()}  # noqa: SIM118
