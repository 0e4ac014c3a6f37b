"""What is counted: evaluations of the model, and a batch beside its samples, run by the host's own executor."""

from collections.abc import Iterator
from typing import Any

import torch

from support.graphs import deferred, detector, ksampler, optimizer

from ..report import Column
from ..scores import Row
from .subjects import Subject

START = 0.4
TOGETHER = 8
MEASURE_ALL = {"start_percent": 1.0, "memorized_threshold": 0.0, "drop_ratio": 0.01}  # dynamic never sees an escape
COLUMNS = [Column(title, title) for title in ("model", "measurement", "ours", "vanilla", "ratio", "bound", "verdict")]


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


def eight_together(subject: Subject, what: str = "", most: float | None = 1e-4) -> Row:
    """The noise of a batch optimised together against that of its samples one after the other."""

    def run(batch: int, index: int | None = None) -> list[Any]:
        return subject.run(optimizer, latent=subject.latent(batch, index), **subject.optimizer)

    noise, report, *_ = run(TOGETHER)
    few, many = int(report.iterations.min()), int(report.iterations.max())
    if few == many or not report.reached.all():
        raise RuntimeError(f"{subject.name}: the samples must reach the target in turn, not after {few} to {many}")
    alone = torch.cat([run(1, i)[0].noise for i in range(TOGETHER)])
    gap = float((noise.noise - alone).abs().max())
    said = f"largest difference, {TOGETHER} together and one by one, {few} to {many} iterations{what}"
    return figure(subject.name, said, gap, most)
