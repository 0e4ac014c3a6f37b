"""What AMG Guidance costs on the lab checkpoint: processor time of a run, paired with the unpatched model.

Vanilla and guided runs take turns in one process; the median of the ratios is printed, since a busy
machine spoils single ones. The network of the descriptor metric has SSCD's size and random weights.

    OMP_NUM_THREADS=1 .host/python -m lab.amg_cost --pairs 9
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch

from lab import scenes
from support import bootstrap

from .score import Sampler
from .study import amg, deferred

STEPS, BATCH = 12, 4
NEVER, ALWAYS = (
    {"threshold_schedule": "constant", "threshold_min": 1.0},
    {"threshold_schedule": "constant", "threshold_min": -1.0},
)


class Bench:
    def __init__(self) -> None:
        sampler = Sampler()
        self.host, self.given = sampler.host, sampler.given
        self.host.load_pack("memorization_guard", bootstrap.ROOT)
        works = torch.from_numpy(np.stack([p.scene.image for p in scenes.memorized()])).float() / 255
        many = torch.randn(2000, 4, 12, 12, generator=torch.Generator().manual_seed(0))
        self.given |= {"works": works, "looks": self._sscd(), "many": {"samples": many}}
        self.given["latent"] = {"samples": torch.zeros(BATCH, 4, 12, 12)}
        for group in ("memorized", "ordinary"):
            self.given[group] = [[self.given[group][0][0][:BATCH], {}]]

    def _sscd(self) -> Any:
        from comfy.model_patcher import ModelPatcher  # not before bootstrap, which tells the host to use the CPU

        sscd = self.host.module("memorization_guard", "mitigation.references.sscd")
        kind = self.host.module("memorization_guard", "adapter.copy_detector").LoadedDescriptor
        with torch.inference_mode():
            network = sscd.sscd_network().eval()
        device = torch.device("cpu")
        return kind("random", "0", ModelPatcher(network, device, device), network, sscd.SIDE, sscd.MEAN, sscd.STD)

    def references(self, metric: str) -> dict[str, Any]:
        if metric == "many":
            return {"class_type": "MG_ReferencesFromLatents", "inputs": {"latents": ["many", 0], "captions": ""}}
        inputs = {
            "images": ["works", 0],
            "captions": "",
            "metric": metric,
            "vae": ["vae", 0],
            "descriptor": ["looks", 0],
        }
        return {"class_type": "MG_ReferencesFromImages", "inputs": inputs}

    def seconds(self, model: Any) -> float:
        prompt = deferred("off", model=["m", 0], steps=STEPS)
        start = time.process_time()
        self.host.run({"k": prompt}, self.given | {"m": model})
        return time.process_time() - start

    def pairs(self, name: str, count: int, metric: str = "latent", **changed: Any) -> None:
        node = amg(dissimilarity=1e-6, vae=["vae", 0], **changed)
        guided = self.host.run({"r": self.references(metric), "g": node}, self.given)["g"][0]
        both = (self.given["model"], guided)
        self.seconds(guided)
        found = []
        for i in range(count):
            order = both if i % 2 else both[::-1]
            spent = dict(zip(map(id, order), map(self.seconds, order), strict=True))
            found.append((spent[id(guided)], spent[id(both[0])]))
        ratio = statistics.median(g / v for g, v in found)
        extra = statistics.median(g - v for g, v in found) / STEPS / BATCH
        print(f"{name:42s} {ratio:6.3f} ×   {1000 * extra:7.1f} ms a step and picture", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    count = parser.parse_args().pairs
    torch.set_num_threads(1)
    bench = Bench()
    bench.pairs("latent, inactive", count, **NEVER)
    bench.pairs("latent, inactive, 2,000 references", count, "many", **NEVER)
    bench.pairs("latent, active at every step", count, **ALWAYS)
    few = max(count // 4, 1)
    bench.pairs("descriptor, inactive", few, "descriptor", **NEVER)
    bench.pairs("descriptor, inactive, every 4th step", few, "descriptor", every=4, **NEVER)
    bench.pairs("descriptor, active at every step", few, "descriptor", **ALWAYS)


if __name__ == "__main__":
    main()
