"""Nodes of a prompt in the API's format, with the defaults of their schemas (tests/host/object_info.json)."""

import functools
import json
from dataclasses import dataclass, field
from typing import Any

from support.paths import ROOT

Node = dict[str, Any]  # {"class_type": ..., "inputs": {...}}
Prompt = dict[str, Node]
Link = list[Any]  # [node id, slot]
Host = Any  # a support.executor.Host, a module that only a configured host can import
SEED = 7
PLAN = {"steps": 50, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


@functools.cache
def schemas() -> dict[str, Any]:
    return json.loads((ROOT / "tests" / "host" / "object_info.json").read_text(encoding="utf-8"))


def defaults(class_type: str) -> dict[str, Any]:
    """The default of every required input of one of our nodes; nothing for a node of the host."""
    inputs = schemas().get(class_type, {"inputs": {"required": {}}})["inputs"]["required"]
    return {name: spec["default"] for name, spec in inputs.items() if "default" in spec}


def node(class_type: str, **inputs: Any) -> Node:
    return {"class_type": class_type, "inputs": {**defaults(class_type), **inputs}}


@dataclass(frozen=True)
class Words:
    """Short words for nodes on these links. `plan` is how they sample where a call says nothing else."""

    links: dict[str, Link]
    plan: dict[str, Any] = field(default_factory=dict)

    def ours(self, class_type: str, **changed: Any) -> Node:
        """A node of the pack with the links and the plan for the inputs that it has."""
        known = schemas()[class_type]["inputs"]
        wanted = {**self.links, "seed": SEED, "noise_seed": SEED, **PLAN, **self.plan}
        own = {k: v for k, v in wanted.items() if k in known["required"]}
        return node(class_type, **{**own, **changed})

    def ksampler(self, **changed: Any) -> Node:
        return node("KSampler", **{**self.links, "seed": SEED, **PLAN, **self.plan, **changed})

    def deferred(self, mode: str = "dynamic", **changed: Any) -> Node:
        return self.ours("MG_DeferredCFGKSampler", mode=mode, **changed)

    def patch(self, mode: str = "dynamic", **changed: Any) -> Node:
        return self.ours("MG_DeferredCFG", mode=mode, **changed)

    def guider(self, mode: str = "dynamic", **changed: Any) -> Node:
        return self.ours("MG_DeferredCFGGuider", mode=mode, **changed)

    def detector(self, **changed: Any) -> Node:
        return self.ours("MG_BasinEscapeDetector", **changed)

    def optimizer(self, method: str = "per-sample", **changed: Any) -> Node:
        return self.ours("MG_NoiseOptimizer", method=method, **changed)

    def calibrate(self, prompts: str, **changed: Any) -> Node:
        return self.ours("MG_Calibrate", prompts=prompts, **{"clip": ["clip", 0], **changed})

    def amg(self, **changed: Any) -> Node:
        return self.ours("MG_AMGGuidance", **{"references": ["refs", 0], **changed})

    def stage(self, first: int, last: int, **changed: Any) -> Node:
        """KSamplerAdvanced from step `first` to `last`: it adds noise at 0 and leaves some before the end."""
        inputs = self.ksampler(**changed)["inputs"]
        seed, _ = inputs.pop("seed"), inputs.pop("denoise")
        begin, leave = ("enable" if on else "disable" for on in (first == 0, last < inputs["steps"]))
        own = {"add_noise": begin, "noise_seed": seed, "start_at_step": first, "end_at_step": last}
        return node("KSamplerAdvanced", **own, return_with_leftover_noise=leave, **inputs)

    def custom(self, guider: Link, noise: Link | None = None, **changed: Any) -> Prompt:
        """SamplerCustomAdvanced as node `custom`, with KSampler's noise and schedule."""
        run = self.ksampler(**changed)["inputs"]
        nodes = {
            "custom_noise": node("RandomNoise", noise_seed=run["seed"]),
            "custom_sampler": node("KSamplerSelect", sampler_name=run["sampler_name"]),
            "custom_sigmas": node("BasicScheduler", **{k: run[k] for k in ("model", "scheduler", "steps", "denoise")}),
        }
        links = {name: [f"custom_{name}", 0] for name in ("noise", "sampler", "sigmas")}
        if noise is not None:
            del nodes["custom_noise"]
            links["noise"] = noise
        last = node("SamplerCustomAdvanced", guider=guider, latent_image=run["latent_image"], **links)
        return {**nodes, "custom": last}
