"""What is measured, on the exact model, the lab checkpoint and UNets of real sizes: evaluations, time and memory."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from support.graphs import Words, deferred, detector, ksampler, optimizer, references
from support.graphs.words import Host, Node

from ..scores import Column, Row

# What the host's detection adds to its own unet_config for a checkpoint of this kind, beside the lab's.
SIZES = json.loads(Path(__file__).with_name("sizes.json").read_text(encoding="utf-8"))
LINKS = {"model": ["m", 0], "positive": ["p", 0], "negative": ["n", 0], "latent_image": ["l", 0]}


@dataclass(frozen=True)
class Subject:
    name: str
    host: Host
    model: Any
    positive: Any
    negative: Any
    shape: tuple[int, ...]

    def latent(self, batch: int) -> dict[str, Any]:
        return {"samples": torch.zeros(batch, *self.shape)}

    def given(self, latent: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return {"m": model or self.model, "p": self.positive, "n": self.negative, "l": latent}

    def run(self, node: Callable[..., Node], *args: Any, latent: dict[str, Any], model: Any = None, **inputs: Any):
        return self.host.run({"node": node(*args, **{**LINKS, **inputs})}, self.given(latent, model))["node"]


def exact_model(host: Host) -> Subject:
    from support.lab_pack import exact

    prompts = [exact.conditioning(p) for p in ("memorized", "null")]
    return Subject("exact model", host, exact.build(), *prompts, exact.SHAPE)


def lab_checkpoint(host: Host) -> Subject:
    """The lab checkpoint as the host's loader gives it, with the first of its memorized prompts."""
    from lab.scenes import memorized_captions
    from support.graphs import checkpoint
    from support.paths import LAB_CHECKPOINT

    held = checkpoint.load(host, LAB_CHECKPOINT)
    out = host.run({"p": checkpoint.text(memorized_captions()[0]), "n": checkpoint.text("")}, held)
    return Subject("lab checkpoint", host, held["m"], out["p"][0], out["n"][0], (4, 64, 64))


def random_model(host: Host, kind: str, side: int, channels: int = 320) -> Subject:
    """SD1.5 or SDXL (or a narrower one) with small random weights: its images mean nothing, its cost is real."""
    import comfy.model_management as management
    import comfy.supported_models as supported
    from comfy.model_patcher import ModelPatcher

    from support.lab_pack.arch import SMALL

    own, added, width, more = {
        "SD1.5": (supported.SD15, SIZES["SD1.5"], 768, {}),
        "SDXL": (supported.SDXL, SIZES["SDXL"], 2048, {"pooled_output": torch.zeros(1, 1280)}),
    }[kind]
    device = management.get_torch_device()
    draw = torch.Generator(device).manual_seed(0)
    with torch.inference_mode():
        config = own({**SMALL.unet, **own.unet_config, **added, "model_channels": channels, "dtype": torch.bfloat16})
        config.set_inference_dtype(torch.bfloat16, None)
        model = config.get_model({}, "", device=device)
        for name, weight in model.diffusion_model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.5 * weight[0].numel() ** -0.5, generator=draw)
            else:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
        prompts = [[[torch.randn((1, 77, width), generator=draw, device=device).cpu(), more]] for _ in range(2)]
    patcher = ModelPatcher(model, device, management.unet_offload_device())
    name = f"{kind}, {side}×{side}" + ("" if channels == 320 else f", {channels} channels")
    return Subject(name, host, patcher, *prompts, (4, side // 8, side // 8))


START = 0.4
MEASURE_ALL = {"start_percent": 1.0, "memorized_threshold": 0.0, "drop_ratio": 0.01}  # dynamic never sees an escape
COLUMNS = [Column(title, title) for title in ("model", "measurement", "ours", "vanilla", "ratio", "bound", "verdict")]
ITERATIONS = 8  # about what the paper's per-sample method takes
# Han et al. 2025, Table 3: the authors' code, bf16, an A100; 3,565 MB and 1.85 s an image without mitigation.
PAPER = {"batch-wise": (2.01 / 1.85, 3574 / 3565), "per-sample, checkpointing off": (2.80 / 1.85, 9702 / 3565)}
PRICE = [
    Column("model", "model"),
    Column("method", "method"),
    Column("seconds", "seconds"),
    Column("time", "time ×", 3),
    Column("paper time", "paper's time ×"),
    Column("MB", "peak MB", 0),
    Column("memory", "memory ×", 3),
    Column("paper memory", "paper's memory ×"),
]


def figure(
    model: str, name: str, ours: float, bound: float | None, vanilla: float | None = None, exact: bool = False
) -> Row:
    """A measurement and its bound, if any: at most that, or just that if `exact`, of the ratio to a vanilla."""
    judged = ours / vanilla if vanilla else ours
    beside = {"vanilla": f"{vanilla:.4g}", "ratio": f"{judged:.3f}"} if vanilla else {}
    row = {"model": model, "measurement": name, "ours": f"{ours:.4g}", **beside}
    if bound is None:
        return row
    good = judged == bound if exact else judged <= bound
    return {**row, "bound": f"{'=' if exact else '≤'} {bound:g}", "verdict": "pass" if good else "SHORT"}


def evaluations(subject: Subject, batch: int = 2) -> Iterator[Row]:
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
        yield figure(subject.name, f"evaluations, {name}", rows, bound, vanilla)
    rows, _ = count(optimizer, "batch-wise")
    yield figure(subject.name, "paired evaluations that batch-wise M = 2 adds", rows / (2 * batch), 4, exact=True)
    rows, (_, step, _, curve, _) = count(detector)
    said, bound = "paired evaluations of the detector: until the last escape", min(step + 1, curve.steps)
    yield figure(subject.name, said, rows / (2 * batch), bound, exact=True)


def methods(subject: Subject, steps: int) -> dict[str, Callable[[], Any]]:
    noise = torch.randn(4, *subject.shape, generator=torch.Generator().manual_seed(0))
    given = {**subject.given(subject.latent(1)), "works": {"samples": noise}}
    words = Words(LINKS, {"steps": steps})

    def run(**nodes: Any) -> Callable[[], Any]:
        return lambda: subject.host.run(nodes, given)

    def optimizing(method: str, **inputs: Any) -> Callable[[], Any]:
        o = words.optimizer(method, target_magnitude=0.0, max_iterations=ITERATIONS, **inputs)
        return run(o=o, k=words.deferred("off", noise=["o", 0]))

    def guided(threshold: float, **inputs: Any) -> Callable[[], Any]:
        limits = {"threshold_min": threshold, "threshold_max": threshold, "threshold_schedule": "constant"}
        g = words.amg(dissimilarity=1e-6, **limits, **inputs)
        return run(refs=references(), g=g, k=words.ksampler(model=["g", 0]))

    return {
        "KSampler": run(k=words.ksampler()),
        "deferral, dynamic": run(k=words.deferred("dynamic")),
        "deferral, static from 40 %": run(k=words.deferred("static", start_percent=START)),
        "batch-wise": optimizing("batch-wise"),
        **{f"per-sample, checkpointing {c}": optimizing("per-sample", checkpointing=c) for c in ("off", "on", "full")},
        "AMG, inactive": guided(1.0),
        "AMG, active at every step": guided(-1.0),
        "AMG, through model, active at every step": guided(-1.0, gradient="through model"),
    }


def prices(subject: Subject, steps: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row for each method: medians of interleaved runs, A B C, C B A, …; the first round warms and is not counted."""
    runs, gpu = methods(subject, steps), torch.cuda.is_available()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name in list(runs)[:: 1 if i % 2 else -1]:
            measured = (on_gpu if gpu else on_cpu)(runs[name])
            if i:
                spent[name].append(measured)
    vanilla = spent["KSampler"]
    for name, own in spent.items():
        pairs = [(a / b, c / d) for (a, c), (b, d) in zip(own, vanilla, strict=True)]
        (seconds, mb), (ratio, memory) = ([median(c) for c in zip(*rows, strict=True)] for rows in (own, pairs))
        row = {"model": subject.name, "method": name, "seconds": seconds, "time": ratio, "MB": mb, "memory": memory}
        yield row | dict(zip(("paper time", "paper memory"), PAPER.get(name, ()), strict=False))


def on_gpu(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds between two events of the device, and the allocator's peak in MB: weights and working memory."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000, torch.cuda.max_memory_allocated() / 2**20


def on_cpu(run: Callable[[], Any]) -> tuple[float, float]:
    """CPU seconds of one thread, and the peak of resident memory in MB, which is that of the whole process."""
    peak = Path("/proc/self/clear_refs")
    if peak.exists():
        peak.write_text("5", encoding="utf-8")
    began = time.process_time()
    run()
    spent = time.process_time() - began
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if peak.exists() else []
    return spent, next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 1.0)
