"""What is counted and timed: our nodes and the vanilla KSampler, run by the host's own executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor

from support.graphs import deferred, detector, ksampler, node, optimizer, stage

from .figure import Figure
from .subjects import LINKS, Subject

STEPS = 50
START = 0.4
TOGETHER = 8
MEASURE_ALL = {"start_percent": 1.0, "memorized_threshold": 0.0, "drop_ratio": 0.01}  # dynamic never sees an escape


def evaluations(subject: Subject, batch: int = 2) -> Iterator[Figure]:
    """Model evaluations in rows (a sample under one condition), 50 Euler steps."""
    from support.lab_pack.meter import Meter

    model, meter, latent = subject.model.clone(), Meter(), subject.latent(batch)
    model.set_model_unet_function_wrapper(meter)

    def count(*made: Any, **inputs: Any) -> tuple[int, list[Any]]:
        meter.rows = 0
        out = subject.run(*made, latent=latent, model=model, **inputs)
        return meter.rows, out

    vanilla, _ = count(ksampler)
    for name, mode, inputs, bound in (
        ("static deferral from 40 %", "static", {"start_percent": START}, 0.80),
        ("dynamic deferral", "dynamic", {}, 1.00),
        ("dynamic that never sees an escape", "dynamic", MEASURE_ALL, 1.00),
    ):
        rows, _ = count(deferred, mode, **inputs)
        yield Figure(subject.name, f"evaluations, {name}", rows, vanilla=vanilla, bound=bound)
    pairs = 2 * batch
    rows, _ = count(optimizer, "batch-wise")
    yield Figure(subject.name, "paired evaluations that batch-wise M = 2 adds", rows / pairs, bound=4, exact=True)
    rows, (_, step, _, curve, _) = count(detector)
    said, bound = "paired evaluations of the detector: until the last escape", min(step + 1, curve.steps)
    yield Figure(subject.name, said, rows / pairs, bound=bound, exact=True)


def clock(runs: dict[str, Callable[[], Any]], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """CPU seconds of every run, interleaved: A B C, C B A, A B C … With one thread: wall time of a quiet machine.

    `warm`: a first round is run and not counted.
    """
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(0 if warm else 1, rounds + 1):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            began = time.process_time()
            runs[name]()
            if i:
                spent[name].append(time.process_time() - began)
    return spent


def paired(ours: list[float], vanilla: list[float]) -> dict[str, float]:
    """Medians, the median of the ratios of neighbouring runs, and the ratio of the fastest runs."""
    ratios = [x / y for x, y in zip(ours, vanilla, strict=True)]
    fastest = min(ours) / min(vanilla)
    return {"ours": median(ours), "vanilla": median(vanilla), "paired": median(ratios), "fastest": fastest}


def sampling_time(subject: Subject, batch: int, steps: int, rounds: int, warm: bool = True) -> Iterator[Figure]:
    """Deferred sampling against KSampler, `batch` images at once."""
    latent, switch = subject.latent(batch), round(START * steps)
    common = {"latent": latent, "steps": steps}

    def two_stages() -> None:
        """The most that static deferral can save, with the host's own nodes: CFG 1 (one evaluation), then all of it."""
        first = stage(0, switch, **LINKS, steps=steps, cfg=1.0)
        second = stage(switch, steps, **{**LINKS, "latent_image": ["a", 0]}, steps=steps)
        subject.host.run({"a": first, "b": second}, subject.given(latent))

    runs = {
        "vanilla": lambda: subject.run(ksampler, **common),
        "dynamic deferral": lambda: subject.run(deferred, "dynamic", **common),
        "dynamic that measures every step": lambda: subject.run(deferred, "dynamic", **common, **MEASURE_ALL),
        "static deferral from 40 %": lambda: subject.run(deferred, "static", **common, start_percent=START),
        "KSampler at CFG 1 up to 40 %, for comparison": two_stages,
    }
    vanilla, *spent = clock(runs, rounds, warm).items()
    for (name, seconds), bound in zip(spent, (1.03, 1.03, 0.85, None), strict=True):
        said = f"time, {name}, batch {batch}, {steps} steps"
        yield Figure(subject.name, said, unit="s", bound=bound, **paired(seconds, vanilla[1]))


def iteration_time(
    subject: Subject, batch: int, iterations: int, steps: int, rounds: int, warm: bool = True
) -> Iterator[Figure]:
    """One iteration of per-sample optimisation against one paired forward: a step of KSampler."""
    latent = subject.latent(batch)
    inputs = {"target_magnitude": 0.0, "max_iterations": iterations}

    def optimize(checkpointing: str) -> Callable[[], Any]:
        return lambda: subject.run(optimizer, latent=latent, **inputs, checkpointing=checkpointing)

    bounds = {"off": ("without checkpoints", 3.2), "on": ("with checkpoints", 3.2)}
    bounds["full"] = ("with full checkpoints", None)
    runs = {"vanilla": lambda: subject.run(ksampler, latent=latent, steps=steps)}
    spent = clock({**runs, **{choice: optimize(choice) for choice in bounds}}, rounds, warm)
    forward = [s / steps for s in spent["vanilla"]]
    for choice, (name, bound) in bounds.items():
        # The optimizer measures once more at the end: that is a forward pass, not an iteration.
        own = [(s - f) / iterations for s, f in zip(spent[choice], forward, strict=True)]
        said = f"time, per-sample iteration {name}, batch {batch}"
        yield Figure(subject.name, said, unit="s", bound=bound, **paired(own, forward))


def eight_together(subject: Subject, rounds: int, what: str = "") -> Iterator[Figure]:
    """A batch optimised together against its samples one after the other: their time, or with 0 rounds their noise."""

    def run(batch: int, index: int | None = None) -> list[Any]:
        return subject.run(optimizer, latent=subject.latent(batch, index), **subject.optimizer)

    def alone() -> Tensor:
        return torch.cat([run(1, i)[0].noise for i in range(TOGETHER)])

    if rounds:
        spent = clock({"alone": alone, "together": lambda: run(TOGETHER)}, rounds)
        said = f"time, {TOGETHER} together (vanilla: one by one)"
        yield Figure(subject.name, said, unit="s", bound=1.0, **paired(spent["together"], spent["alone"]))
        return
    noise, report, *_ = run(TOGETHER)
    few, many = int(report.iterations.min()), int(report.iterations.max())
    if few == many or not report.reached.all():
        raise RuntimeError(f"{subject.name}: the samples must reach the target in turn, not after {few} to {many}")
    gap = float((noise.noise - alone()).abs().max())
    said = f"largest difference, {TOGETHER} together and one by one, {few} to {many} iterations{what}"
    yield Figure(subject.name, said, gap, bound=1e-4)


def guidance_time(subject: Subject, rounds: int, batch: int = 4, steps: int = 12) -> Iterator[Figure]:
    """AMG Guidance that never or always acts, against the unpatched model; SSCD's weights are random."""
    from lab.copies import training_pairs

    images = torch.stack([torch.from_numpy(image.copy()) for _, image in training_pairs()]).float() / 255
    given = {"m": subject.model, "v": subject.vae, "d": _random_sscd(subject), "images": images}
    given["many"] = {"samples": torch.randn(2000, *subject.shape, generator=torch.Generator().manual_seed(0))}
    few = {"images": ["images", 0], "captions": "", "vae": ["v", 0], "descriptor": ["d", 0]}
    sets = {m: node("MG_ReferencesFromImages", **few, metric=m) for m in ("latent", "descriptor")}
    sets["2,000 latents"] = node("MG_ReferencesFromLatents", latents=["many", 0], captions="")

    def guided(kind: str, threshold: float, every: int = 1) -> Any:
        own = {"threshold_schedule": "constant", "threshold_min": threshold, "every": every}
        links = {"model": ["m", 0], "references": ["r", 0], "vae": ["v", 0]}
        graph = {"r": sets[kind], "g": node("MG_AMGGuidance", **own, **links, dissimilarity=1e-6)}
        return subject.host.run(graph, given)["g"][0]

    never, always = 1.0, -1.0
    models = {
        "latent, inactive": guided("latent", never),
        "latent, inactive, 2,000 references": guided("2,000 latents", never),
        "latent, active at every step": guided("latent", always),
        "descriptor, inactive": guided("descriptor", never),
        "descriptor, inactive, every 4th step": guided("descriptor", never, every=4),
        "descriptor, active at every step": guided("descriptor", always),
    }
    latent = subject.latent(batch)
    for name, model in models.items():
        both = {
            "ours": lambda model=model: subject.run(ksampler, latent=latent, steps=steps, model=model),
            "vanilla": lambda: subject.run(ksampler, latent=latent, steps=steps),
        }
        spent = clock(both, max(rounds // 4, 1) if name.startswith("descriptor") else rounds)
        said = f"time, AMG Guidance, {name}, batch {batch}, {steps} steps"
        yield Figure(subject.name, said, unit="s", **paired(spent["ours"], spent["vanilla"]))


def _random_sscd(subject: Subject) -> Any:
    from comfy.model_patcher import ModelPatcher

    from support.paths import PACK

    sscd = subject.host.module(PACK, "mitigation.references.sscd")
    loaded = subject.host.module(PACK, "adapter.copy_detector").LoadedDescriptor
    with torch.inference_mode():
        network = sscd.sscd_network().eval()
    cpu = torch.device("cpu")
    return loaded("random", "0", ModelPatcher(network, cpu, cpu), network, sscd.SIDE, sscd.MEAN, sscd.STD)
