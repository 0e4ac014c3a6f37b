"""A checkpoint in the host, and the graph of a method for the images that are sampled together."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from support.graphs import Prompt, node
from support.graphs.words import Host
from support.paths import PACK

from .cases import BenchmarkError, Case
from .methods import NODES, NONE, PATCHES, Inputs, Method, checked


@dataclass(frozen=True)
class Plan:
    steps: int = 50
    cfg: float = 7.0
    sampler: str = "ddim"
    scheduler: str = "ddim_uniform"  # t 981, 961, …, 1 at 50 steps, as in the papers' pipelines
    size: int = 512


class Batch(NamedTuple):
    """Images that are sampled together. Their noise is rows `first` and following of `whole` rows drawn with `seed`."""

    cases: tuple[Case, ...]  # one an image
    images: tuple[int, ...]  # number of each image among those of its prompt
    seed: int
    first: int
    whole: int


@dataclass(frozen=True)
class Facts:
    """What an image cost, and what the nodes reported about it."""

    evaluations: float  # rows of the model for this image; a backward pass is not counted
    seconds: float
    memory: float | None = None  # peak of its batch in MB; measured on a CUDA device only
    told: dict[str, float] = field(default_factory=dict)


class Checkpoint:
    """The loaded models, and what else is given to every graph. `clock` times a batch."""

    def __init__(self, host: Host, file: Path, plan: Plan, clock: Callable[[], float] = time.perf_counter) -> None:
        from support.lab_pack.meter import Meter

        self.host, self.file, self.plan, self.clock = host, file, plan, clock
        checked("sampler", {"sampler_name": plan.sampler, "scheduler": plan.scheduler})
        loader = node("CheckpointLoaderSimple", ckpt_name=self._listed("checkpoints", file))
        model, self.clip, self.vae = host.run({"loader": loader})["loader"]
        if self.clip is None or self.vae is None:
            raise BenchmarkError(f"{file} holds no text encoder or no VAE: give a full checkpoint.")
        self.meter, self.model = Meter(), model.clone()
        self.model.set_model_unet_function_wrapper(self.meter)
        self.given: dict[str, Any] = {"model": self.model, "clip": self.clip, "vae": self.vae}
        self._encoded: dict[str, list] = {}
        self.training_images = ""  # folder in the host's input directory, for References from Folder

    def module(self, name: str) -> ModuleType:
        return self.host.module(PACK, name)

    def _listed(self, folder: str, file: Path) -> str:
        """Make the host find a file where it lies; its name there."""
        import folder_paths

        if not file.is_file():
            raise BenchmarkError(f"{file} does not exist.")
        file = file.resolve()
        folder_paths.add_model_folder_path(folder, str(file.parent))
        found = folder_paths.get_full_path(folder, file.name)
        if found is None or not file.samefile(found):
            raise BenchmarkError(f"{file}: ComfyUI does not list it under {folder}, or knows another of that name.")
        return file.name

    def put_lora(self, file: Path, strength: float = 1.0) -> None:
        name = self._listed("loras", file)
        loader = node("LoraLoaderModelOnly", model=["model", 0], lora_name=name, strength_model=strength)
        (self.model,) = self.host.run({"l": loader}, self.given)["l"]
        self.given["model"] = self.model

    def copy_detector(self, file: Path) -> Any:
        """SSCD's weights as the node loads them, given to graphs from now on, by the preparation of images."""
        name = self._listed("copy_detection", file)
        for preparation in self.module("nodes.load_copy_detector").PREPARATIONS:
            loader = node("MG_LoadCopyDetector", file=name, preparation=preparation)
            (self.given[preparation],) = self.host.run({"d": loader})["d"]
        return self.given["as SSCD"]

    def references(self, changed: Inputs) -> str:
        """The name under which graphs find the references that these inputs make; each set is made once."""
        name = f"references {json.dumps(changed, sort_keys=True)}"
        if name not in self.given:
            inputs = {"metric": "latent", "folder": self.training_images, **changed}
            preparation = inputs.pop("preparation", "as SSCD")
            inputs = {"width": self.plan.size, "height": self.plan.size, **checked("references", inputs)}
            links = {"vae": ["vae", 0]} | ({"descriptor": [preparation, 0]} if preparation in self.given else {})
            made = self.host.run({"r": node(NODES["references"], **inputs, **links)}, self.given)["r"]
            self.given[name] = made[0]
        return name

    def guarded(self, changed: Inputs) -> str:
        """The name under which graphs find the model with this guard, which keeps what it has calibrated."""
        name = f"guarded {json.dumps(changed, sort_keys=True)}"
        if name not in self.given:
            links, asked = {"model": ["model", 0], "clip": ["clip", 0]}, checked("guard", changed)
            if "folder" in asked:
                asked, links = {**asked, "folder": self.training_images}, {**links, "vae": ["vae", 0]}
            (self.given[name],) = self.host.run({"g": node(NODES["guard"], **links, **asked)}, self.given)["g"]
        return name

    def encode(self, texts: list[str]) -> list:
        """CONDITIONING with a row a text; one row if all texts are the same."""
        wanted = list(dict.fromkeys(texts))
        if missing := [t for t in wanted if t not in self._encoded]:
            read = self.module("adapter.conditioning").unweighted  # the papers' pipelines know no emphasis
            nodes = {f"text {t}": node("CLIPTextEncode", clip=["clip", 0], text=read(t)) for t in missing}
            out = self.host.run(nodes, self.given)
            self._encoded |= {t: out[f"text {t}"][0] for t in missing}
        if len(wanted) == 1:
            return self._encoded[wanted[0]]
        return [[torch.cat([self._encoded[t][0][0] for t in texts]), {}]]

    def graph(self, method: Method, batch: Batch) -> Prompt:
        """Node `sampler` samples the batch; `positive` and `negative` are given, and `reworded` for re-anchoring."""
        plan, size = self.plan, self.plan.size
        nodes = {
            "all": node("EmptyLatentImage", width=size, height=size, batch_size=batch.whole),
            "latent": node("LatentFromBatch", samples=["all", 0], batch_index=batch.first, length=len(batch.cases)),
        }
        conds: Inputs = {"positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0]}
        sampled: Inputs = {"seed": batch.seed, "steps": plan.steps, "cfg": plan.cfg, "denoise": 1.0}
        sampled |= {"sampler_name": plan.sampler, "scheduler": plan.scheduler, "model": ["model", 0]}
        if "guard" in method.inputs:
            sampled["model"] = [self.guarded(method.inputs["guard"]), 0]
        for patch in (name for name in PATCHES if name in method.inputs):
            links = {"model": sampled["model"]} | ({"reworded": ["reworded", 0]} if patch == "reanchoring" else {})
            nodes[patch] = node(NODES[patch], **links, **checked(patch, method.inputs[patch]))
            sampled["model"] = [patch, 0]
        if not method.inputs.keys() - {"guard", *PATCHES}:
            return {**nodes, "sampler": node("KSampler", **sampled, **conds)}
        if "guidance" in method.inputs:
            references = self.references(method.references or {})
            links = {"model": ["model", 0], "references": [references, 0], "vae": ["vae", 0], "clip": ["clip", 0]}
            nodes["guidance"] = node(NODES["guidance"], **links, **checked("guidance", method.inputs["guidance"]))
            sampled["model"] = ["guidance", 0]
        own = {"mode": "off", **sampled, **checked("sampler", method.inputs.get("sampler", {}))}
        if "noise" in method.inputs:
            schedule = {"scheduler": plan.scheduler, "steps": plan.steps, "denoise": 1.0}
            nodes["sigmas"] = node("BasicScheduler", model=["model", 0], **schedule)
            noise = {**checked("noise", method.inputs["noise"]), "noise_seed": batch.seed}
            nodes["noise"] = node(NODES["noise"], model=["model", 0], sigmas=["sigmas", 0], **conds, **noise)
            own["noise"] = ["noise", 0]
        nodes["sampler"] = node(NODES["sampler"], **conds, **own)
        return nodes

    def warm_up(self, batch: Batch) -> None:
        """Sample for two steps: the first run of a process is slower and must not be timed."""
        self.given |= {"positive": self.encode([c.text for c in batch.cases]), "negative": self.encode([""])}
        graph = self.graph(NONE, batch)
        graph["sampler"]["inputs"]["steps"] = 2
        self.host.run(graph, self.given)

    def sample(self, method: Method, batch: Batch) -> list[tuple[np.ndarray, Facts]]:
        """Images (H, W, 3) uint8 with their facts; the batch's cost is divided evenly among them."""
        texts, count = [c.text for c in batch.cases], len(batch.cases)
        self.given |= {"positive": self.encode(texts), "negative": self.encode([""])}
        graph = self.graph(method, batch)  # this makes the references, which are not timed
        self.meter.rows, began = 0, self.clock()
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        if method.conditioning is not None:
            name = "reworded" if "reanchoring" in method.inputs else "positive"
            self.given[name] = method.conditioning(self, texts, batch.seed)
        out = self.host.run(graph, self.given)
        seconds, rows = self.clock() - began, self.meter.rows
        memory = torch.cuda.max_memory_allocated() / 2**20 if cuda else None
        images = self.decode(out["sampler"][0])
        return [(images[i], Facts(rows / count, seconds / count, memory, _told(out, i))) for i in range(count)]

    def decode(self, latent: dict[str, torch.Tensor]) -> np.ndarray:
        """Images (B, H, W, 3) uint8."""
        with torch.inference_mode():
            return (self.vae.decode(latent["samples"]).float().cpu().clamp(0, 1) * 255).round().byte().numpy()

    def made_by(self, method: Method, training_images: str, detector: Path | None = None) -> dict[str, Any]:
        made: dict[str, Any] = {**asdict(self.plan), "checkpoint": _file(self.file), "inputs": dict(method.inputs)}
        if method.references is not None:
            made["training images"] = training_images
        if method.references and method.references.get("metric") == "descriptor":
            made["sscd"] = _file(detector)
        return made


def _told(out: dict[str, list[Any]], i: int) -> dict[str, float]:
    told: dict[str, float] = {}
    if len(out["sampler"]) > 1:  # our sampler, not the host's
        curve = out["sampler"][1]
        told["without_cfg"] = float(curve.transition[i]) / max(curve.steps, 1)
    if "noise" in out:
        report = out["noise"][1]
        told |= {"d_before": float(report.before[i]), "d_after": float(report.after[i]), "std": float(report.std[i])}
        told |= {"relative_after": float(report.relative(report.after)[i])}
        told |= {"iterations": float(report.iterations[i]), "reached": float(report.reached[i])}
    return told


def _file(path: Path | None) -> str:
    return f"{path.name}, {path.stat().st_size} bytes" if path is not None else ""
