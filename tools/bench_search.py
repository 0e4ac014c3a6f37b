#!/usr/bin/env python3
"""How long and how large a search among references is, on this machine's CPU.

.host/python tools/bench_search.py [--threads 2] [--rows 10000 1000000] [--dim 512]
"""

from __future__ import annotations

import argparse
import importlib
import resource
import statistics
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def pack_module(name: str):
    """A module of mitigation/, without a host: the repository is not on the path (see tests/conftest.py)."""
    sys.path.append(str(ROOT))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    store = pack_module("mitigation.nearest").ExactStore
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for rows in asked.rows:
        features = torch.empty(rows, asked.dim, dtype=torch.float16)
        for part in features.split(2**10):  # drawn in parts: as float32 the whole would not fit the bar
            drawn = torch.randn(part.shape)
            part.copy_(drawn / drawn.norm(dim=1, keepdim=True))
        made = store(features, "latent")
        queries = features[torch.randint(rows, (asked.batch,))].float()
        times = []
        made.nearest(queries)  # the first one starts the library
        for _ in range(15):
            start = time.perf_counter()
            values, _ = made.nearest(queries)
            times.append(time.perf_counter() - start)
        assert bool((values > 0.99).all()), "a row was not found as its own nearest"
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(
            f"{rows} × {asked.dim}, batch {asked.batch}, {asked.threads} thread(s): median "
            f"{statistics.median(times) * 1e3:.1f} ms, best {min(times) * 1e3:.1f}, worst {max(times) * 1e3:.1f}; "
            f"peak memory {peak / 1e9:.3f} GB, of which the set {features.nbytes / 1e9:.3f}"
        )


if __name__ == "__main__":
    main()
