"""The gradient of d through the real UNet, under every feature of the host: against finite differences in float32."""

from typing import Any
from unittest.mock import Mock

import comfy.ops
import pytest
import torch
from torch import Tensor

from support.accidents import slots
from support.executor import Host
from support.families import files
from support.gradients import checked, gradient
from support.graphs import from_images, node
from support.graphs.checkpoint import amg, ksampler, optimizer
from support.graphs.features import CONDITIONS, LATENTS, Feature
from support.lab_files import EXTRAS
from support.outcomes import refused, same_bits


def _with_a_network(given: dict[str, Any]) -> dict[str, Any]:
    """A hypernetwork and a mask in an attention patch, as nodes make them: under inference mode."""
    draw = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        networks = {width: torch.nn.Linear(width, width) for width in (64, 128)}
        for width, network in networks.items():
            network.weight.copy_(torch.randn(width, width, generator=draw) * 0.1)
        mask = torch.rand(1, 1, 1, generator=draw)

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> list[Tensor]:
        return [(q + networks[q.shape[-1]](q)) * mask, k, v] if q.shape[-1] in networks else [q, k, v]

    model = given["m"].clone()
    model.set_model_attn1_patch(attention)
    return {"own": model}


FREEU = node("FreeU_V2", model=["m", 0], b1=1.3, b2=1.4, s1=0.9, s2=0.2)
PATCHED = {
    "FreeU_V2": Feature({"p": FREEU}, {"model": ["p", 0]}),
    "a network and a mask in a patch": Feature({}, {"model": ["own", 0]}, _with_a_network),
}
NULLED = Feature({**CONDITIONS["negative"].nodes}, {**CONDITIONS["negative"].links, "null": ["null", 0]})
FEATURES = {"nothing": Feature(), "negative and null": NULLED, **CONDITIONS, **EXTRAS, **LATENTS, **PATCHED}
del FEATURES["image to image"]  # another schedule: see test_rows.py
PLAIN = Feature()


@pytest.mark.parametrize("name", FEATURES)
def test_the_gradient_is_what_d_does_and_weights_are_what_they_were(host: Host, checkpoint, name: str) -> None:
    vanilla = PLAIN.prompt(k=ksampler(steps=1))
    host.run(vanilla, checkpoint)
    before = slots(checkpoint["m"].model)
    checked(host, FEATURES[name], checkpoint)
    host.run(vanilla, checkpoint)  # the host takes a LoRA out with the next model
    after = slots(checkpoint["m"].model)
    assert {k: v[1] for k, v in after.items()} == {k: v[1] for k, v in before.items()}
    assert name == "LoRA" or after == before, "a LoRA's layers are other objects in vanilla, too"


@pytest.mark.parametrize("name", ["nothing", "ControlNet, a hint a sample", "LoRA on the positive"])
def test_checkpoints_change_nothing(host: Host, checkpoint, name: str) -> None:
    """The host tells a block where it is by one shared dict: the patch depends on it."""
    by_place = {"input": 0.3, "middle": 0.6, "output": 0.9}

    def attention(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> list[Tensor]:
        where, number = options["block"]
        return [q * (by_place[where] + 0.05 * number + 0.01 * options["block_index"]), k, v]

    model = checkpoint["m"].clone()
    model.set_model_attn1_patch(attention)
    forwards = {n: m.forward for n, m in model.model.named_modules()}
    off, on = (gradient(host, FEATURES[name], {**checkpoint, "m": model}, how) for how in ("off", "on"))
    torch.testing.assert_close(on.gradient, off.gradient, atol=1e-6, rtol=1e-4)
    assert {n: m.forward for n, m in model.model.named_modules()} == forwards
    assert not any("forward" in m.__dict__ for m in model.model.modules())


def test_a_weight_whose_storage_cannot_be_shared_is_copied(host: Host, checkpoint, monkeypatch) -> None:
    before = slots(checkpoint["m"].model)
    expected = gradient(host, PLAIN, checkpoint)
    weights = host.module("memorization_guard", "adapter.autograd.inference_weights")
    monkeypatch.setattr(weights, "_tensor_on_same_storage", Mock(side_effect=RuntimeError("no alias")))
    found = gradient(host, PLAIN, checkpoint)
    assert torch.equal(found.gradient, expected.gradient)
    assert slots(checkpoint["m"].model) == before
    modules = [*checkpoint["m"].model.modules(), comfy.ops.CastWeightBiasOp]
    assert not any(getattr(m, f"{kind}_function", []) for m in modules for kind in ("weight", "bias"))


@pytest.mark.parametrize("network", files.NETWORKS)
@pytest.mark.parametrize("checkpoints", ["on", "off"])
def test_networks_that_are_not_made_for_a_way_back(host: Host, checkpoint, checkpoints: str, network: str) -> None:
    """Flux writes `img += ...` where the way back needs the old one; newer hosts compute Cosmos in fused kernels."""
    given = files.given(network=network)
    checked(host, files.FEATURE, {**checkpoint, **given}, checkpoints, d=1e-3)


class WrongBackward(torch.autograd.Function):
    """The identity, whose backward pass turns the gradient round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return -upstream


@torch.library.custom_op("memorization_guard_test::forward_only", mutates_args=())
def forward_only(x: Tensor) -> Tensor:
    return x.clone()


OPERATIONS = {"wrong": WrongBackward.apply, "cannot be differentiated": forward_only}


@pytest.mark.parametrize("says", OPERATIONS)
@pytest.mark.parametrize("node", ["optimizer", "AMG"])
def test_a_gradient_that_is_none_is_refused(host: Host, checkpoint, node: str, says: str) -> None:
    """What no walk over the weights can see: an operation that another pack put into the model."""
    model = checkpoint["m"].clone()
    model.model_options["model_function_wrapper"] = lambda call, given: OPERATIONS[says](
        call(given["input"], given["timestep"], **given["c"])
    )
    given = {**checkpoint, "m": model, "i": torch.rand(4, 64, 64, 3)}
    steers = {"dissimilarity": 10.0, "threshold_min": -1.0, "threshold_max": -1.0, "gradient": "through model"}
    guided = {"refs": from_images("latent"), "g": amg(**steers), "k": ksampler(model=["g", 0])}
    said = refused(host, PLAIN.prompt(**({"o": optimizer()} if node == "optimizer" else guided)), given)
    assert says in said and ("search or batch-wise" if node == "optimizer" else "through prediction") in said
    vanilla = PLAIN.prompt(k=ksampler(steps=1))
    assert same_bits(host.run(vanilla, given)["k"], host.run(vanilla, checkpoint)["k"])
