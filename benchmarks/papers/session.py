"""One checkpoint in the host, and the graph of a method for one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from .cases import PapersError
from .methods import NODES, Inputs, Method
from .start import PACK

if TYPE_CHECKING:
    from support.executor import Host, Prompt


@dataclass(frozen=True)
class Plan:
    """What is the same for every method."""

    steps: int = 50
    cfg: float = 7.0
    sampler: str = "ddim"
    scheduler: str = "ddim_uniform"  # t 981, 961, …, 1 at 50 steps, as the papers' pipelines
    size: int = 512
    images: int = 10
    batch: int = 1
    seed: int = 0


class Evaluations:
    """Counts rows that the model evaluates: one sample under one condition is one."""

    def __init__(self) -> None:
        self.rows = 0

    def __deepcopy__(self, memo: dict) -> Evaluations:
        return self  # a clone of the model copies its options deeply; the count stays one

    def __call__(self, apply_model: Any, args: dict[str, Any]) -> torch.Tensor:
        self.rows += len(args["input"])
        return apply_model(args["input"], args["timestep"], **args["c"])


class Session:
    """The loaded checkpoint and what else is given to every graph."""

    def __init__(self, host: Host, checkpoint: Path, plan: Plan) -> None:
        self.host, self.plan = host, plan
        checked("sampler", {"sampler_name": plan.sampler, "scheduler": plan.scheduler})
        name = self._listed("checkpoints", checkpoint)
        loader = node("CheckpointLoaderSimple", ckpt_name=name)
        model, clip, self.vae = host.run({"loader": loader})["loader"]
        if clip is None or self.vae is None:
            raise PapersError(f"{checkpoint} holds no text encoder or no VAE: give a full checkpoint.")
        self.evaluations = Evaluations()
        metered = model.clone()
        metered.set_model_unet_function_wrapper(self.evaluations)
        self.given: dict[str, Any] = {"model": metered, "clip": clip, "vae": self.vae}

    def module(self, name: str) -> ModuleType:
        """A module of the pack, as the host runs it."""
        return self.host.module(PACK, name)

    def _listed(self, folder: str, file: Path) -> str:
        """Make the host find a file where it lies; its name there."""
        import folder_paths

        if not file.is_file():
            raise PapersError(f"{file} is not there.")
        file = file.resolve()
        folder_paths.add_model_folder_path(folder, str(file.parent))
        found = folder_paths.get_full_path(folder, file.name)
        if found is None or not file.samefile(found):
            raise PapersError(f"{file}: ComfyUI does not take it for one of {folder}, or knows another of that name.")
        return file.name

    def copy_detector(self, file: Path) -> Any:
        """SSCD's weights as the node loads them, given to graphs from now on."""
        loader = node("MG_LoadCopyDetector", file=self._listed("copy_detection", file))
        (self.given["descriptor"],) = self.host.run({"d": loader})["d"]
        return self.given["descriptor"]

    def add_references(self, metric: str, folder: str, changed: Inputs) -> int:
        """Make the references of a metric, once, for all graphs; how many there are."""
        size = {"width": self.plan.size, "height": self.plan.size}
        inputs = {
            **defaults("references"),
            **size,
            **checked("references", changed),
            "metric": metric,
            "folder": folder,
        }
        links = {"vae": ["vae", 0]} | ({"descriptor": ["descriptor", 0]} if metric == "descriptor" else {})
        made = self.host.run({"r": node(NODES["references"], **inputs, **links)}, self.given)["r"]
        self.given[f"references {metric}"] = made[0]
        return made[1]

    def graph(self, method: Method, text: str, seed: int, first: int, count: int) -> Prompt:
        """Pictures `first` … of a prompt, as node `sampler`.

        Noise is KSampler's for the whole batch of the prompt's pictures, so that it does not depend on how many of
        them are sampled together.
        """
        plan = self.plan
        nodes = {
            "positive": node("CLIPTextEncode", clip=["clip", 0], text=unweighted(text)),
            "negative": node("CLIPTextEncode", clip=["clip", 0], text=""),
            "all": node("EmptyLatentImage", width=plan.size, height=plan.size, batch_size=plan.images),
            "latent": node("LatentFromBatch", samples=["all", 0], batch_index=first, length=count),
        }
        conds: Inputs = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
        sampled: Inputs = {"seed": seed, "steps": plan.steps, "cfg": plan.cfg, "denoise": 1.0}
        sampled |= {"sampler_name": plan.sampler, "scheduler": plan.scheduler, "model": ["model", 0]}
        inputs, noised = method.inputs, {}
        if not inputs:
            return {**nodes, "sampler": node("KSampler", **sampled, **conds)}
        if "noise" in inputs:
            schedule = {"scheduler": plan.scheduler, "steps": plan.steps, "denoise": 1.0}
            nodes["sigmas"] = node("BasicScheduler", model=["model", 0], **schedule)
            own = {**defaults("noise"), **checked("noise", inputs["noise"]), "noise_seed": seed}
            nodes["noise"] = node(NODES["noise"], model=["model", 0], sigmas=["sigmas", 0], **conds, **own)
            noised = {"noise": ["noise", 0]}
        if "guidance" in inputs:
            links = {"references": [f"references {method.metric}", 0], "vae": ["vae", 0], "clip": ["clip", 0]}
            own = {**defaults("guidance"), **checked("guidance", inputs["guidance"])}
            nodes["guidance"] = node(NODES["guidance"], model=["model", 0], **links, **own)
            sampled["model"] = ["guidance", 0]
        own = {**defaults("sampler"), "mode": "off", **sampled, **checked("sampler", inputs.get("sampler", {}))}
        nodes["sampler"] = node(NODES["sampler"], **conds, **own, **noised)
        return nodes

    def decode(self, latent: dict[str, torch.Tensor]) -> torch.Tensor:
        """Pictures (B, H, W, 3) uint8."""
        with torch.inference_mode():
            return (self.vae.decode(latent["samples"]).float().cpu().clamp(0, 1) * 255).round().byte()


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def unweighted(text: str) -> str:
    r"""The host reads "(1985)" as emphasis, and the papers' pipelines do not: brackets become \( and \)."""
    return text.replace("(", r"\(").replace(")", r"\)")


def _widgets(of: str) -> dict[str, tuple[Any, Inputs]]:
    """Inputs of a node of ours that are values: type and what the schema says of each."""
    import nodes

    kinds = nodes.NODE_CLASS_MAPPINGS[NODES[of]].INPUT_TYPES()
    declared = {**kinds.get("required", {}), **kinds.get("optional", {})}
    return {name: (spec[0], spec[1]) for name, spec in declared.items() if len(spec) > 1 and "default" in spec[1]}


def defaults(of: str) -> Inputs:
    return {name: said["default"] for name, (_, said) in _widgets(of).items()}


def checked(of: str, changed: Mapping[str, Any]) -> Inputs:
    """The same inputs, if the node has them and they may have these values. Raises PapersError.

    The host does not look into the choices of a V3 node, and takes another sampler for a name that it does not know.
    """
    known = _widgets(of)
    free = ("metric", "folder") if of == "references" else ()  # without a default; given by the protocol
    if foreign := sorted(set(changed) - set(known) - set(free)):
        raise PapersError(f"{NODES[of]} has no input {', '.join(foreign)}. It has: {', '.join(sorted(known))}.")
    for name, value in changed.items():
        kind, said = known.get(name, ("", {}))
        choices = kind if isinstance(kind, list) else said.get("options")
        if choices is not None and value not in choices:
            raise PapersError(f"{NODES[of]}: {name} is {value!r}; choose one of {', '.join(map(str, choices))}.")
        low, high = said.get("min"), said.get("max")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if low is not None and high is not None and not (number and low <= value <= high):
            raise PapersError(f"{NODES[of]}: {name} is {value!r}; it goes from {low} to {high}.")
    return dict(changed)
