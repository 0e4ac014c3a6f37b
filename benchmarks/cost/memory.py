"""Peak memory of one run in a process of its own: `-m benchmarks.cost.memory KIND SIZE` prints one line of JSON.

On the CPU there is no allocator to ask, so it is the resident set's high-water mark during the run (reset by
/proc/self/clear_refs) above what was resident before the model was built: weights and working memory. Freed tensors
go straight back to the system (MALLOC_MMAP_THRESHOLD_), so they do not count as held. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.graphs import ksampler, optimizer
from support.in_process import lab_host
from support.paths import PACK

from .figure import Figure
from .subjects import sd15

CHECKPOINTING = {"half": "on", "full": "full", "none": "off"}  # what is kept of a graph -> the optimizer's input
MB = 1 / 2**20


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(kind: str, size: int) -> dict[str, float]:
    """MB of one run, and the constants by which the pack decides about memory.

    `peak`: weights and working memory; `working`; `estimate`: the host's for a forward pass with fused attention.
    """
    with lab_host("--cpu --use-pytorch-cross-attention") as host:
        before = resident("VmRSS")
        subject = sd15(host, size)
        built = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        if kind == "sampling":
            subject.run(ksampler, latent=subject.latent(1), steps=2)
        else:
            inputs = {"target_magnitude": 0.0, "max_iterations": 1, "checkpointing": CHECKPOINTING[kind]}
            subject.run(optimizer, latent=subject.latent(1), **inputs)
        peak = resident("VmHWM")
        module = host.module(PACK, "adapter.autograd.checkpointing")
        estimate = module.graph_memory(subject.model.model, (1, *subject.shape)) / module.WHOLE_GRAPH * MB
        headroom = host.module(PACK, "methods.noise_adjustment").GRADIENT_HEADROOM
        limits = {"GRAPH": module.WHOLE_GRAPH, "HALF": module.HALF_GRAPH, "HEADROOM": headroom}
        return {"peak": peak - before, "working": peak - built, "estimate": estimate, **limits}


def in_a_process(kind: str, size: int) -> dict[str, float]:
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.cost.memory", kind, str(size)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the memory measurement {kind} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def memory(size: int) -> Iterator[Figure]:
    """Peaks at SD1.5's size, and the constants by which the pack decides about memory."""
    vanilla, half, full, none = (in_a_process(kind, size) for kind in ("sampling", *CHECKPOINTING))
    name = f"SD1.5, {size}×{size}"
    made = {"with checkpoints": half, "with full checkpoints": full, "without checkpoints": none}
    for said, ours in made.items():
        bound = None if ours is none else 1.5
        yield Figure(name, f"peak memory, per-sample {said}", ours["peak"], "MB", vanilla["peak"], bound)
    for said, ours in made.items():
        bound = full["HEADROOM"] if ours is full else None
        yield Figure(name, f"the same without the weights: {said}", ours["working"], "MB", vanilla["working"], bound)
    for said, ours, bound in (("without", none, none["GRAPH"]), ("with", half, half["HALF"])):
        said = f"{said} checkpoints, over the host's estimate of a step"
        yield Figure(name, said, ours["working"], "MB", none["estimate"], bound)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
