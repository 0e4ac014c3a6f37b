"""Peak memory of one run in a process of its own: `bench_memory.py KIND SIZE` prints one line of JSON.

On the CPU there is no allocator to ask, so it is the resident set's high-water mark during the run
(reset by /proc/self/clear_refs) above what was resident before the model was built: weights and
working memory. Tensors go straight to the system and back (MALLOC_MMAP_THRESHOLD_), so that freed
memory does not count as held. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KINDS = {"sampling": "", "half": "on", "checkpoints": "full", "graph": "off"}  # checkpointing of the optimizer
MB = 1 / 2**20


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(kind: str, size: int) -> dict[str, float]:
    from benchmarks.bench_host import PACK, host, sd15

    with host() as made:
        import torch

        from benchmarks.bench_runs import Subject
        from support.graphs import ksampler, optimizer

        before = resident("VmRSS")
        model, prompts = sd15(torch.bfloat16)
        built = resident("VmRSS")
        subject = Subject("SD1.5", made, model, prompts["positive"], prompts["negative"], (4, size // 8, size // 8))
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        if kind == "sampling":
            subject.run(ksampler, latent=subject.latent(1), steps=2)
        else:
            inputs = {"target_magnitude": 0.0, "max_iterations": 1}
            subject.run(optimizer, latent=subject.latent(1), checkpointing=KINDS[kind], **inputs)
        peak = resident("VmHWM")
        told = made.module(PACK, "adapter.autograd.checkpointing")
        estimate = told.graph_memory(model.model, (1, *subject.shape)) / told.WHOLE_GRAPH * MB
        limits = {
            "GRAPH": told.WHOLE_GRAPH,
            "HALF": told.HALF_GRAPH,
            "HEADROOM": made.module(PACK, "methods.noise_adjustment").GRADIENT_HEADROOM,
        }
        return {"peak": peak - before, "working": peak - built, "estimate": estimate, **limits}


def peak_memory(kind: str, size: int) -> dict[str, float]:
    """MB of one run in a fresh process, and the pack's constants.

    `peak`: weights and working memory; `working`; `estimate`: the host's for a forward pass with fused attention.
    """
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, kind, str(size)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the memory measurement {kind} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
