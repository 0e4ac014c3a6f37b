"""What is counted and timed: our nodes and the vanilla KSampler, run by the host's own executor."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.bench_table import Row

if TYPE_CHECKING:
    from support.executor import Host
    from support.graphs import Node

STEPS = 50
START = 0.4
TOGETHER = 8


@dataclass(frozen=True)
class Subject:
    """A model with a memorized prompt, an empty one and the shape of a latent."""

    name: str
    host: Host
    model: Any
    positive: Any
    negative: Any
    shape: tuple[int, ...]
    optimizer: dict[str, Any] = field(default_factory=dict)  # what makes it converge on this model

    def latent(self, batch: int, index: int | None = None) -> dict[str, Any]:
        latent: dict[str, Any] = {"samples": torch.zeros(batch, *self.shape)}
        return latent if index is None else {**latent, "batch_index": [index]}

    def run(self, node: Callable[..., Node], *args: Any, latent: dict[str, Any], model: Any = None, **inputs: Any):
        """The outputs of one node on this model."""
        given = {"m": model or self.model, "p": self.positive, "n": self.negative, "l": latent}
        links = {"model": ["m", 0], "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["l", 0]}
        return self.host.run({"node": node(*args, **links, **inputs)}, given)["node"]


def exact_model(host: Host) -> Subject:
    from support.lab_pack import exact

    prompts = [exact.conditioning(p) for p in ("memorized", "null")]
    return Subject("exact model", host, exact.build(), *prompts, exact.SHAPE)


def lab_checkpoint(host: Host) -> Subject:
    """The lab checkpoint as the host's loader gives it, with the first of its memorized prompts."""
    from lab.copies import training_pairs

    caption = training_pairs()[0][0]
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "lab.safetensors"}}
    texts = {
        name: {"class_type": "CLIPTextEncode", "inputs": {"clip": ["c", 1], "text": text}}
        for name, text in (("p", caption), ("n", ""))
    }
    out = host.run({"c": loader, **texts})
    fast = {"target_magnitude": 0.02, "learning_rate": 0.1}
    return Subject("lab, 96×96", host, out["c"][0], out["p"][0], out["n"][0], (4, 12, 12), fast)


def evaluations(subject: Subject, batch: int = 2) -> Iterator[Row]:
    """Model evaluations in rows (a sample under one condition), 50 Euler steps."""
    from support.graphs import deferred, detector, ksampler, optimizer
    from support.lab_pack.meter import Meter

    model, meter, latent = subject.model.clone(), Meter(), subject.latent(batch)
    model.set_model_unet_function_wrapper(meter)

    def count(*node: Any, **inputs: Any) -> tuple[int, list[Any]]:
        meter.rows = 0
        out = subject.run(*node, latent=latent, model=model, **inputs)
        return meter.rows, out

    def row(name: str, ours: float, bound: float, **more: Any) -> Row:
        return Row(subject.name, name, ours, "", bound=bound, **more)

    vanilla, _ = count(ksampler)
    rows, _ = count(deferred, "static", start_percent=START)
    yield row("evaluations, static deferral from 40 %", rows, 0.80, vanilla=vanilla)
    rows, _ = count(deferred, "dynamic")
    yield row("evaluations, dynamic deferral", rows, 1.00, vanilla=vanilla)
    rows, _ = count(deferred, "dynamic", start_percent=1.0, memorized_threshold=0.0, drop_ratio=0.01)
    yield row("evaluations, dynamic that never sees an escape", rows, 1.00, vanilla=vanilla)
    rows, _ = count(optimizer, "batch-wise")
    yield row("paired evaluations that batch-wise M = 2 adds", rows / (2 * batch), 4, exact=True)
    rows, (_, step, _, curve, _) = count(detector)
    yield row(
        "paired evaluations of the detector: until the last escape",
        rows / (2 * batch),
        min(step + 1, curve.steps),
        exact=True,
    )


def clock(runs: dict[str, Callable[[], Any]], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """CPU seconds of every run, interleaved: A B C, C B A, A B C … One thread: on a quiet machine wall time.

    `warm`: a first round is run and thrown away.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(0 if warm else 1, rounds + 1):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            began = time.process_time()
            runs[name]()
            if i:  # the first round warms up
                spent[name].append(time.process_time() - began)
    return spent


def paired(spent: dict[str, list[float]], ours: str, vanilla: str) -> dict[str, float]:
    """Medians, the median of the ratios of neighbouring runs, and the ratio of the fastest runs."""
    a, b = spent[ours], spent[vanilla]
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return {"ours": median(a), "vanilla": median(b), "paired": median(ratios), "fastest": min(a) / min(b)}


def two_stages(subject: Subject, steps: int, **run: Any) -> None:
    """What static deferral saves at best, with the host's own nodes: CFG 1 (one evaluation), then the whole CFG."""
    plan = {"cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "steps": steps, "noise_seed": 7}
    links = {"model": ["m", 0], "positive": ["p", 0], "negative": ["n", 0]}
    switch = round(START * steps)
    first = {"cfg": 1.0, "add_noise": "enable", "start_at_step": 0, "end_at_step": switch}
    second = {"add_noise": "disable", "start_at_step": switch, "end_at_step": steps}
    prompt = {
        name: {"class_type": "KSamplerAdvanced", "inputs": {**plan, **links, **own, "return_with_leftover_noise": more}}
        for name, own, more in (
            ("a", {**first, "latent_image": ["l", 0]}, "enable"),
            ("b", {**second, "latent_image": ["a", 0]}, "disable"),
        )
    }
    subject.host.run(prompt, {"m": subject.model, "p": subject.positive, "n": subject.negative, "l": run["latent"]})


def sampling_time(subject: Subject, batch: int, steps: int, rounds: int, warm: bool = True) -> Iterator[Row]:
    """Deferred sampling against KSampler, `batch` pictures at once."""
    from support.graphs import deferred, ksampler

    latent, said = subject.latent(batch), f"batch {batch}, {steps} steps"
    spent = clock(
        {
            "vanilla": lambda: subject.run(ksampler, latent=latent, steps=steps),
            "dynamic": lambda: subject.run(deferred, "dynamic", latent=latent, steps=steps),
            "watching": lambda: subject.run(
                *(deferred, "dynamic"),
                **{"latent": latent, "steps": steps},
                **{"start_percent": 1.0, "memorized_threshold": 0.0, "drop_ratio": 0.01},
            ),
            "static": lambda: subject.run(deferred, "static", latent=latent, steps=steps, start_percent=START),
            "two stages": lambda: two_stages(subject, steps, latent=latent),
        },
        rounds,
        warm,
    )
    for name, key, bound in (
        ("dynamic deferral", "dynamic", 1.03),
        ("dynamic that measures every step", "watching", 1.03),
        ("static deferral from 40 %", "static", 0.85),
        ("KSampler at CFG 1 up to 40 %, for comparison", "two stages", None),
    ):
        yield Row(subject.name, f"time, {name}, {said}", unit="s", bound=bound, **paired(spent, key, "vanilla"))


def iteration_time(
    subject: Subject, batch: int, iterations: int, steps: int, rounds: int, warm: bool = True
) -> Iterator[Row]:
    """One iteration of per-sample optimisation against one paired forward: a step of KSampler."""
    from support.graphs import ksampler, optimizer

    latent = subject.latent(batch)

    def optimize(checkpointing: str) -> Callable[[], Any]:
        return lambda: subject.run(
            optimizer, latent=latent, target_magnitude=0.0, max_iterations=iterations, checkpointing=checkpointing
        )

    runs = {"vanilla": lambda: subject.run(ksampler, latent=latent, steps=steps)}
    spent = clock({**runs, **{choice: optimize(choice) for choice in ("off", "on", "full")}}, rounds, warm)
    forward = [s / steps for s in spent["vanilla"]]
    for name, key, bound in (
        ("without checkpoints", "off", 3.2),
        ("with checkpoints", "on", 3.2),
        ("with full checkpoints", "full", None),
    ):
        # The optimizer measures once more at the end: that is a forward pass, not an iteration.
        own = [(s - f) / iterations for s, f in zip(spent[key], forward, strict=True)]
        figures = paired({"ours": own, "vanilla": forward}, "ours", "vanilla")
        yield Row(subject.name, f"time, per-sample iteration {name}, batch {batch}", unit="s", bound=bound, **figures)


def eight_together(subject: Subject, rounds: int, what: str = "") -> Iterator[Row]:
    """A batch optimised together against its samples one after the other, to a target that they reach in turn."""
    from support.graphs import optimizer

    def run(batch: int, index: int | None = None) -> list[Any]:
        return subject.run(optimizer, latent=subject.latent(batch, index), **subject.optimizer)

    def alone() -> Tensor:
        return torch.cat([run(1, i)[0].noise for i in range(TOGETHER)])

    if rounds:
        spent = clock({"one by one": alone, "together": lambda: run(TOGETHER)}, rounds)
        figures = paired(spent, "together", "one by one")
        yield Row(subject.name, f"time, {TOGETHER} together (vanilla: one by one)", unit="s", bound=1.0, **figures)
        return
    noise, report, *_ = run(TOGETHER)
    few, many = int(report.iterations.min()), int(report.iterations.max())
    if few == many or not report.reached.all():
        raise RuntimeError(f"{subject.name}: the samples must reach the target in turn, not after {few} to {many}")
    gap = float((noise.noise - alone()).abs().max())
    said = f"largest difference, {TOGETHER} together and one by one, {few} to {many} iterations{what}"
    yield Row(subject.name, said, gap, "", bound=1e-4)


def in_float64(subject: Subject) -> Subject:
    """The same network in double precision: what is left of a difference is the method's, not rounding's."""
    with torch.inference_mode():
        network = copy.deepcopy(subject.model.model.diffusion_model).double()
        network.dtype = torch.float64
    precise = subject.model.clone()
    precise.add_object_patch("diffusion_model", network)
    return replace(subject, model=precise)
