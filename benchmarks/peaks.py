"""Peak memory of every method on the lab checkpoint, over KSampler's: `python -m lab.peaks` prints JSON.

Runs in a process of its own whose freed memory goes back to the system at once (the caller sets
MALLOC_MMAP_THRESHOLD_), three steps a method: more do not change the peak, and this is slow. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 3


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def short(inputs: dict[str, Any]) -> dict[str, Any]:
    fewer = {"steps": STEPS, "max_iterations": 2, "candidates": 2}
    return {k: fewer.get(k, v) for k, v in inputs.items()}


def measure() -> dict[str, float]:
    """MB above what was held before, by method."""
    from .bench import Bench
    from .methods import METHODS

    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(Path(work))
        bench.warm()
        for method in METHODS * 2:  # what a method allocates once and for all is not counted
            given, before = dict(bench.sampler.given), resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            if method.positive is not None:
                given["memorized"] = method.positive(bench, "memorized", 1)
            prompt = method.prompt("memorized")
            bench.sampler.host.run({k: {**n, "inputs": short(n["inputs"])} for k, n in prompt.items()}, given)
            found[method.name] = resident("VmHWM") - before
    return found


def ratios(first: str) -> dict[str, float]:
    """The peaks of a fresh process, over that of the method `first`."""
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "lab.peaks"], env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: mb / found[first] for name, mb in found.items()}


if __name__ == "__main__":
    print(json.dumps(measure()))
