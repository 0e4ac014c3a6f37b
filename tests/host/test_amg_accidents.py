"""AMG Guidance: what cannot work is said before sampling, and an accident leaves the host as it was."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lab.export import FILE
from support.accidents import pixel_set, slots
from support.executor import Host, NodeError
from support.graphs import amg, faulty, ksampler, lab, references
from support.lab_pack import exact

GUIDED = ["g", 0]


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.inference_mode():
        return comfy.sd.load_state_dict_guess_config(load_file(FILE), output_clip=False)[2]


class Count:
    """Counts model calls: a refusal comes before the first."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, apply_model, args):
        self.calls += 1
        return apply_model(args["input"], args["timestep"], **args["c"])

    def __deepcopy__(self, memo: dict) -> Count:
        return self


def refused(host: Host, given: dict[str, Any], captions: str = "", **changed: Any) -> tuple[str, str]:
    """(the node that refused, what it said); nothing was evaluated."""
    count, model = Count(), exact.build()
    model.set_model_unet_function_wrapper(count)
    given = {"works": {"samples": exact.x_mem()}, "m": model} | given
    nodes = {"g": amg(**{"model": ["m", 0], **changed}), "k": ksampler(model=GUIDED)}
    prompt = {"lab": lab(2), "refs": references(captions), **nodes}
    with pytest.raises(NodeError) as caught:
        host.run(prompt, given)
    assert caught.value.kind.endswith("GuardError"), caught.value
    assert count.calls == 0
    return caught.value.node_id, caught.value.message


def a_set(host: Host, metric: str, count: int, dim: tuple[int, ...], **extra: Any) -> Any:
    kind = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    size = int(torch.tensor(dim).prod())
    blank = ("",) * count
    return kind(metric, torch.ones(count, size).half(), dim, blank, blank, **extra)


def test_deduplication_without_captions(host: Host) -> None:
    node, said = refused(host, {"clip": exact.TextEncoder()}, deduplication=5.0, clip=["clip", 0])
    assert node == "g" and "deduplication needs captions" in said and "set deduplication to 0" in said


def test_deduplication_without_clip(host: Host) -> None:
    node, said = refused(host, {}, "a ring", deduplication=5.0)
    assert node == "g" and "connect `clip`" in said and "set deduplication to 0" in said


def test_a_set_of_another_size(host: Host) -> None:
    node, said = refused(host, {"works": {"samples": torch.randn(1, 4, 8, 16)}})
    assert node == "k" and "4 × 8 × 16" in said and "4 × 8 × 8" in said and "`references`" in said


def test_a_set_of_another_family(host: Host) -> None:
    node, said = refused(host, {"works": {"samples": torch.randn(1, 16, 8, 8)}})
    assert node == "g" and "16 channels" in said and "works with 4" in said


@pytest.mark.parametrize("metric", ["nL2", "descriptor"])
def test_a_metric_that_needs_a_vae(host: Host, metric: str) -> None:
    made = a_set(host, metric, 60, (3, 64, 64) if metric == "nL2" else (8,))
    node, said = refused(host, {"s": made}, references=["s", 0])
    assert node == "g" and "connect `vae`" in said and metric in said


def test_a_vae_of_another_family(host: Host, vae: Any) -> None:
    class Wide:
        latent_channels = 16
        encode = decode = len
        first_stage_model = nn.Identity()

    made = a_set(host, "nL2", 60, (3, 64, 64))
    node, said = refused(host, {"s": made, "v": Wide()}, references=["s", 0], vae=["v", 0])
    assert node == "g" and "16 channels" in said and "`vae`" in said


def test_a_descriptor_that_is_not_loaded(host: Host, vae: Any) -> None:
    made = a_set(host, "descriptor", 4, (8,), descriptor_name="SSCD")
    node, said = refused(host, {"s": made, "v": vae}, references=["s", 0], vae=["v", 0])
    assert node == "g" and "SSCD" in said and "not loaded" in said


def test_a_threshold_that_falls(host: Host) -> None:
    node, said = refused(host, {}, threshold_min=0.7)
    assert node == "g" and "`threshold_min`" in said and "`threshold_max`" in said


def test_something_else_than_a_set(host: Host) -> None:
    node, said = refused(host, {"s": {"samples": 1}}, references=["s", 0])
    assert node == "g" and "not a reference set" in said


def test_a_quantized_model_through_the_model(host: Host) -> None:
    prompt = {"lab": lab(2), "refs": references(), "f": faulty("quantized")}
    given = {"works": {"samples": exact.x_mem()}}
    with pytest.raises(NodeError, match="through prediction") as caught:
        host.run({**prompt, "g": amg(model=["f", 0], gradient="through model")}, given)
    assert caught.value.node_id == "g"
    out = host.run({**prompt, "g": amg(model=["f", 0]), "k": ksampler(model=GUIDED)}, given)["k"][0]
    assert not exact.is_copy(out).any(), "through the prediction it works"


@pytest.mark.parametrize("gradient", ["through prediction", "through model"])
@pytest.mark.parametrize("accident", ["none", "exception", "interrupt"])
def test_weights_are_the_same_objects_with_the_same_bytes_after_it(
    host: Host, vae: Any, gradient: str, accident: str
) -> None:
    """With a set that decodes: the model's weights and the VAE's are thawed and put back."""
    model, calls = exact.build(), 0
    made = pixel_set(host, vae)

    def trouble(apply_model, args):
        nonlocal calls
        calls += 1
        if calls == 4 and accident == "exception":
            raise RuntimeError("injected fault")
        if calls == 4 and accident == "interrupt":
            comfy.model_management.interrupt_current_processing()
        return apply_model(args["input"], args["timestep"], **args["c"])

    before = slots(model.model), slots(vae.first_stage_model)
    vanilla = {"lab": lab(1), "k": ksampler(model=["m", 0], steps=4)}
    picture = host.run(vanilla, {"m": model})["k"][0]["samples"]
    patched = model.clone()
    patched.set_model_unet_function_wrapper(trouble)
    node = amg(model=["p", 0], references=["s", 0], vae=["v", 0], gradient=gradient)
    prompt = {"lab": lab(1), "g": node, "k": ksampler(model=GUIDED, steps=4)}
    given = {"p": patched, "s": made, "v": vae}
    if accident == "none":
        out = host.run(prompt, given)["k"][0]["samples"]
        assert not torch.equal(out, picture), "it was guided"
    else:
        with pytest.raises(NodeError) as caught:
            host.run(prompt, given)
        assert caught.value.kind == "interrupted" or "injected fault" in caught.value.message
    assert (slots(model.model), slots(vae.first_stage_model)) == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    assert torch.equal(host.run(vanilla, {"m": model})["k"][0]["samples"], picture), "the next picture is vanilla"
