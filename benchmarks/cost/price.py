"""Time and peak memory of the pack's nodes on a model, against KSampler in the same run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from support.graphs import Words, references

from ..report import Column
from .measurements import START
from .subjects import LINKS, Subject

ITERATIONS = 8  # about what the paper's per-sample method takes
# Han et al. 2025, Table 3: the authors' code, bf16, an A100; 3,565 MB and 1.85 s an image without mitigation.
PAPER = {"batch-wise": (2.01 / 1.85, 3574 / 3565), "per-sample, checkpointing off": (2.80 / 1.85, 9702 / 3565)}
COLUMNS = [
    Column("model", "model"),
    Column("method", "method"),
    Column("seconds", "seconds"),
    Column("time", "time ×", 3),
    Column("paper time", "paper's time ×"),
    Column("MB", "peak MB", 0),
    Column("memory", "memory ×", 3),
    Column("paper memory", "paper's memory ×"),
]


def methods(subject: Subject, steps: int) -> dict[str, Callable[[], Any]]:
    """Whole runs: an image from noise to latent."""
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
        (seconds, mb), (ratio, memory) = (
            [median(column) for column in zip(*rows, strict=True)] for rows in (own, pairs)
        )
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
