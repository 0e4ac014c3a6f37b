"""Nodes that compare the pack's gradients with what their functions really do, in this process or on a server."""

import copy
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import nodes
from support.executor import ANY, Host, host_node
from support.graphs import SEED, Node, node
from support.graphs.checkpoint import detector
from support.graphs.features import Feature

STEP, EXACT_STEP, DIRECTIONS = 0.1, 1e-6, 1  # the longest steps, as a share of x; random directions
CFG = 1.5  # more would drive random prompts out of a VAE's range, where it is all kinks
KINDS = {"model": ("MODEL",), "latent_image": ("LATENT",)}
KINDS |= dict.fromkeys(("positive", "negative"), ("CONDITIONING",))
# Planted, to see that it is found.
FAULT = 1.2 if "gradient" in os.environ.get("MG_CHECK_FAULT", "") else 1.0


@dataclass(frozen=True)
class Gradient:
    d: Tensor  # (B,) without a graph
    gradient: Tensor  # (B, C, H, W)
    error: float  # largest difference from finite differences, as a share of the gradient; NaN: not compared
    doubt: float  # of the finite differences, as the same share
    dtype: str  # of the computation

    @property
    def allowed(self) -> float:
        """Rounding makes the gradient of a network in half precision as wrong as dozens of its units.

        On a CPU the tiny families were wrong by up to 0.007 in fp16 and 0.17 in bf16, which differ by 8 in their units.
        """
        return max(1e-3, 32 * torch.finfo(getattr(torch, self.dtype)).eps)

    @property
    def good(self) -> bool:
        doubt = 0.0 if self.dtype == "float32" else 2 * self.doubt  # rounding, unless the differences are exact
        return bool((self.gradient.flatten(1).abs().amax(1) > 0).all()) and self.error <= self.allowed + doubt

    @property
    def said(self) -> str:
        return f"{self.error:.1e} of at most {self.allowed:.1e} in {self.dtype} (differences ± {self.doubt:.0e})"


def compared(
    value: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor, dtype: torch.dtype, differences: bool, step=STEP
) -> Gradient:
    """A gradient of `value` (B,) at x that was computed in `dtype`, beside finite differences if they are wanted."""
    gradient, norm = gradient.double() * FAULT, gradient.double().flatten(1).norm(dim=1) * FAULT
    own = gradient * (x[0].numel() ** 0.5 / norm).view(-1, *[1] * (x.ndim - 1))
    draw = torch.Generator().manual_seed(5)
    ways = [own]
    if dtype == torch.float32:  # in half precision rounding is as large as what a random direction sees of the gradient
        ways += [torch.randn(x.shape, generator=draw).to(own) for _ in range(DIRECTIONS)]
    exact = x.dtype == torch.float64  # no step is too short, and one direction shows as much as their sum
    errors, doubts = [], []
    with exact_float32():
        for way in ([torch.stack(ways).sum(0)] if exact else ways) if differences else []:
            measured, doubt = slope(value, x, way.to(x), step * float(x.std()), 3 if exact else 6)
            along = (gradient * way).flatten(1).sum(1)
            scale = torch.maximum(along.abs(), norm)
            errors.append(float(((along - measured).abs() / scale).max()))
            doubts.append(float((doubt / scale).max()))
        d = value(x).cpu() if differences else torch.tensor(torch.nan)
    worst = [max(found, default=float("nan")) for found in (errors, doubts)]
    return Gradient(d, gradient.cpu(), *worst, str(dtype).removeprefix("torch."))


def slope(value: Callable[[Tensor], Tensor], x: Tensor, way: Tensor, step: float, halvings: int) -> Tensor:
    """What `value` (B,) does at x along `way`, and how far that is to be trusted, (2, B): Ridders' method.

    A long step sees the curve, a short one sees rounding: of the steps from `step` down, each half of the last and
    freed of the quadratic error, the one that agrees best with both of its neighbours is taken.
    """
    with torch.no_grad():
        steps = [step / 2**i for i in range(halvings + 1)]
        plain = torch.stack([(value(x + h * way).double() - value(x - h * way).double()) / (2 * h) for h in steps])
    better = (4 * plain[1:] - plain[:-1]) / 3
    gaps = (better[1:] - better[:-1]).abs()
    doubt = torch.maximum(gaps[1:], gaps[:-1])
    best = doubt.argmin(0, keepdim=True)
    return torch.cat([better[1:-1].gather(0, best), doubt.gather(0, best)])


@contextmanager
def exact_float32() -> Iterator[None]:
    """Without TF32, in which a GPU convolves float32 by default, and without kernels that know no float64."""
    kept, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with module("adapter.autograd.fused_kernels").plain_kernels():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept


def module(name: str) -> ModuleType:
    names = ("memorization_guard", "memorization-guard")
    package = next(m for m in sys.modules if "custom_nodes" in m and Path(m).name in names)
    return importlib.import_module(f"{package}.{name}")


def computed_in(model: Any) -> torch.dtype:
    return model.model.manual_cast_dtype or model.model.get_dtype()


OWN = {"checkpoints": ("STRING", {}), "evict": ("FLOAT", {"default": 0.0}), "differences": ("BOOLEAN", {})}


@host_node("MGTest_Gradient", {**KINDS, **OWN}, (ANY,), {"null": ("CONDITIONING",), "exact": ("MODEL",)})
def measure(
    model, positive, negative, latent_image, checkpoints, evict, differences, null=None, exact=None
) -> tuple[Gradient]:
    """d of a noise. `exact`: the same weights in float32, for the differences, which half precision would drown.

    `evict`: how much of the weights the host takes off the device before the gradient, as it may at any time.
    """
    magnitude, samples = module("mitigation.prediction").guidance_magnitude, latent_image["samples"]
    scaled = module("mitigation.scaled_gradient").scaled_gradient

    def inside(body: Callable, model: Any) -> Any:
        inputs = module("adapter.sampling").SamplingInputs(
            model=model,
            positive=positive,
            negative=negative,
            null=null,
            latent=latent_image,
            noise=module("adapter.noise").drawn_noise(samples, SEED, latent_image.get("batch_index")),
            sigmas=module("adapter.schedule").one_step_schedule(model, None, "test"),
            seed=SEED,
            node="test",
        )
        return module("adapter.two_predictions").run_in_sampling_scope(body, inputs)

    def gradient(pair: Any, noise: Tensor) -> Tensor:
        def descend() -> Tensor:
            x = noise.clone().requires_grad_()
            return scaled(magnitude(pair.prediction(x)).sum(), x, noise[0].numel() ** 0.5)

        if evict:
            patcher = pair.model.current_patcher
            patcher.partially_unload(patcher.offload_device, evict * patcher.model_size())
        with exact_float32():
            return pair.with_gradients(descend, checkpoints)

    found = inside(gradient, model)

    def beside(pair: Any, noise: Tensor) -> Gradient:
        return compared(lambda x: magnitude(pair.prediction(x)), noise, found, computed_in(model), differences)

    return (inside(beside, exact or model),)


TWINS = {"exact": ("VAE",), "exact_model": ("MODEL",), "exact_descriptor": (ANY,)}


@host_node("MGTest_AMGGradient", {**KINDS, "differences": ("BOOLEAN", {})}, (ANY,), TWINS)
def measure_amg(
    model, positive, negative, latent_image, differences, exact=None, exact_model=None, exact_descriptor=None
) -> tuple[Gradient]:
    """σ of the predictions in a guided run: all gradients that AMG Guidance takes, through whatever networks."""
    scorers = module("methods.amg.reference_scorer").ReferenceScorer
    through = module("methods.amg.model_gradient").ModelGradient
    call_of = module("adapter.model_call").SamplerCall
    by_prediction, by_model, found = scorers.gradient, through.__call__, []

    def precise(scorer: Any) -> Any:
        made, references = copy.copy(scorer), scorer.plan.references
        if exact_descriptor is not None:
            network = module("adapter.copy_detector").as_descriptor(exact_descriptor, "test")
            references = replace(references, descriptor=network)
        made.plan = replace(scorer.plan, vae=exact, references=references)
        return made

    def of_prediction(scorer, denoised: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        with exact_float32():
            gradient = by_prediction(scorer, denoised, rows, wanted)
        twin, dtype = precise(scorer), getattr(scorer.plan.vae, "vae_dtype", torch.float32)
        with patch.object(Tensor, "float", Tensor.double):  # float32 would round away what a short step does
            value = lambda x: twin.similarity(x, rows)  # noqa: E731
            found.append(compared(value, denoised.double(), gradient, dtype, differences, EXACT_STEP))
        return gradient

    def of_model(own, call, nearest, wanted: Tensor, linear) -> Tensor:
        with exact_float32():
            gradient = by_model(own, call, nearest, wanted, linear)
        x, step, undo = call.x, STEP, ExitStack()
        if exact_model is not None:
            x, step = x.double(), EXACT_STEP
            undo.enter_context(patch.object(own, "scorer", precise(own.scorer)))
            exact_model.pre_run()
            undo.callback(exact_model.cleanup)
            undo.enter_context(patch.object(call.guider, "inner_model", exact_model.model))
            undo.enter_context(patch.object(Tensor, "float", Tensor.double))

        def value(x: Tensor) -> Tensor:
            moved = call_of(call.executor, x, call.sigma, call.options, call.seed)
            return own.scorer.similarity(own._steered(moved, linear), nearest.rows)

        with undo:
            found.append(compared(value, x, gradient, computed_in(model), differences, step))
        return gradient

    scorers.gradient, through.__call__ = of_prediction, of_model
    try:
        nodes.common_ksampler(model, SEED, 2, CFG, "euler", "normal", positive, negative, latent_image)
    finally:
        scorers.gradient, through.__call__ = by_prediction, by_model
    worst = max(found, key=lambda one: one.error)
    return (replace(worst, gradient=torch.cat([one.gradient for one in found])),)


def gradient_node(checkpoints: str = "auto", evict: float = 0.0, differences: bool = True, **links: Any) -> Node:
    return node("MGTest_Gradient", checkpoints=checkpoints, evict=evict, differences=differences, **links)


def amg_gradient_node(twins: Iterable[str], differences: bool = True, **links: Any) -> Node:
    """`twins`: the networks in float64 that are given under these names."""
    return node("MGTest_AMGGradient", differences=differences, **links, **{name: [name, 0] for name in twins})


def gradient(
    host: Host, feature: Feature, given: dict[str, Any], checkpoints: str = "off", differences: bool = False
) -> Gradient:
    """The gradient under `feature`. Without differences in a tenth of the time: for one beside another."""
    links = {k: v for k, v in feature.inputs().items() if k != "denoise"}
    prompt = feature.prompt(gradient=gradient_node(checkpoints, differences=differences, **links))
    return host.run(prompt, feature.given(given))["gradient"][0]


def checked(host: Host, feature: Feature, given: dict[str, Any], checkpoints: str = "off", d: float = 1e-4) -> Gradient:
    """The gradient, which is what finite differences give, of d as the detector measures it in its first step."""
    found = gradient(host, feature, given, checkpoints, differences=True)
    links = {k: v for k, v in feature.inputs().items() if k != "denoise"}
    watched = host.run(feature.prompt(watch=detector(**links, steps=2)), feature.given(given))["watch"][3].d[:, 0]
    torch.testing.assert_close(found.d, watched, rtol=d, atol=0)
    assert found.error < 1e-2
    return found
