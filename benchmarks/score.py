"""How well the lab checkpoint draws what it is asked for, sampled by the real host and scored by the judge.

Every group is compared with the generator's own pictures for the same captions, through the VAE; the rows
`generator` are that measure applied to the generator itself, with as many pictures: what a perfect model gets.

    OMP_NUM_THREADS=1 .host/python -m lab.score WORK
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab import scenes, vae
from lab.copies import COPY_RMSE, rmse
from lab.export import FILE
from lab.judge import Judge, diversity, frechet, reference
from support.paths import LAB_NAME, LAB_PACK

REFERENCES = 768
GROUPS = (("ordinary", 7.0), ("ordinary", 1.0), ("memorized", 7.0), ("memorized", 1.0), ("memorized", 0.0))


def captions() -> dict[str, list[str]]:
    return {"ordinary": scenes.ordinary_prompts(), "memorized": [p.caption for p in scenes.memorized()]}


class Sampler:
    """The lab checkpoint in the host, 16 captions a batch."""

    def __init__(self) -> None:
        from support import bootstrap  # first: it tells the host to use the CPU

        comfy_sd, Host = importlib.import_module("comfy.sd"), importlib.import_module("support.executor").Host
        self.host = Host(bootstrap.BASE, {LAB_NAME: LAB_PACK})
        with torch.inference_mode():
            model, clip, self.vae, _ = comfy_sd.load_checkpoint_guess_config(str(FILE))
            self.given: dict[str, Any] = {"model": model, "clip": clip, "vae": self.vae}
            self.given["null"] = self._encode(clip, [""])
            for name, texts in captions().items():
                self.given[name] = self._encode(clip, texts)
        self.given["latent"] = {"samples": torch.zeros(16, 4, scenes.SIZE // 8, scenes.SIZE // 8)}

    @staticmethod
    def _encode(clip: Any, texts: list[str]) -> list:
        return [[torch.cat([clip.encode_from_tokens(clip.tokenize(t)) for t in texts]), {}]]

    def sample(self, group: str, cfg: float, seed: int) -> np.ndarray:
        """(16, 96, 96, 3) uint8, one picture a caption; Euler, normal, 50 steps."""
        inputs: dict[str, Any] = {"model": ["model", 0], "positive": [group, 0], "negative": ["null", 0]}
        inputs |= {"latent_image": ["latent", 0]}
        inputs |= {
            "seed": seed,
            "steps": 50,
            "cfg": cfg,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        }
        latent = self.host.run({"k": {"class_type": "KSampler", "inputs": inputs}}, self.given)["k"][0]
        with torch.inference_mode():
            return (self.vae.decode(latent["samples"]) * 255).round().byte().numpy()


def line(judge: Judge, name: str, pictures: np.ndarray, texts: list[str], target: np.ndarray) -> str:
    """pictures (seeds, 16, 96, 96, 3); target: features of the generator's pictures for these captions."""
    flat = pictures.reshape(-1, *pictures.shape[2:])
    found = judge.alignment(flat, texts * len(pictures))
    features = judge.judge(flat).features
    spread = np.mean([diversity(f) for f in features.reshape(len(pictures), len(texts), -1).swapaxes(0, 1)])
    works = [p.scene.image for p in scenes.memorized()]
    copies = np.mean([min(rmse(p, w) for w in works) < COPY_RMSE for p in flat])
    return (
        f"{name:20s} {len(flat):4d}  aligned {found.aligned.mean():.3f}  shape {found.shape.mean():.3f}  "
        f"colour {np.nanmean(found.colour):.3f}  Fréchet {frechet(features, target):6.2f}  "
        f"diversity {spread:5.2f}  copies {copies:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    judge, sampler = Judge.load(), None
    targets = {}
    for group, texts in captions().items():
        targets[group] = judge.judge(vae.through(reference(texts, REFERENCES, seed=1))).features
        own = vae.through(reference(texts, 16 * args.seeds, seed=2)).reshape(
            args.seeds, 16, scenes.SIZE, scenes.SIZE, 3
        )
        print(line(judge, f"{group}, generator", own, texts, targets[group]), flush=True)
    for group, cfg in GROUPS:
        made = []
        for seed in range(1, args.seeds + 1):
            file = args.work / f"sampled-{group}-{cfg:g}-{seed}.npy"
            if not file.is_file():
                sampler = sampler or Sampler()
                np.save(file, sampler.sample(group, cfg, seed))
            made.append(np.load(file))
        print(line(judge, f"{group}, CFG {cfg:g}", np.stack(made), captions()[group], targets[group]), flush=True)


if __name__ == "__main__":
    main()
