"""A pack of the host for support.remote_host: models with random weights, and what a run gave as files."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a server has nothing of ours on its path

import comfy.sd
import comfy.utils
import folder_paths
import torch

import nodes
import support.gradients  # noqa: F401 - adds its nodes
from support.copy_detectors import random_clip_vision
from support.executor import AnyType, Sink
from support.families import built, cells, files, kinds

FAMILIES = {family.name: family for family in [*files.FAMILIES, *built.FAMILIES, files.LAB]}
PRECISIONS = {p.name: p for p in [*kinds.PRECISIONS.values(), *kinds.STATES.values(), kinds.USUAL]}
BASE = Path(folder_paths.base_path)
SLOTS = 8


class Load(Sink):
    """Takes a family's file as the model under test; the small lab has a VAE, too."""

    held: ClassVar[dict[str, Any]] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {name: ("STRING", {}) for name in ("family", "precision", "file")}}

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        return float("nan")

    def run(self, family: str, precision: str, file: str) -> dict[str, Any]:
        asked, path = PRECISIONS[precision], BASE / file
        self.held.clear()
        self.held.update(FAMILIES[family].given(path, asked))
        if family == files.LAB.name:
            weights = comfy.utils.load_torch_file(str(path))
            vae = comfy.utils.state_dict_prefix_replace(weights, {"first_stage_model.": ""}, filter_keys=True)
            for name, dtype in (("vae", asked.weights), ("exact vae", torch.float64)):
                self.held[name] = comfy.sd.VAE(sd=dict(vae), dtype=dtype)
                self.held[name].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
            self.held["exact vae"].first_stage_model.double().to(self.held["vae"].device)
            self.held["descriptor"] = random_clip_vision(BASE)
        return {}


class Given(Load):
    """An object of Load by its name, or what the client wrote into a file of that name."""

    RETURN_TYPES = (AnyType("*"),)
    OUTPUT_NODE = False

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": ("STRING", {})}}

    def run(self, name: str) -> tuple[Any]:
        file = BASE / f"{name}.given"
        if name == "m" and "weights" in os.environ.get("MG_CHECK_FAULT", ""):  # planted, to see that it is found
            next(self.held["m"].model.diffusion_model.parameters()).mul_(1.01)
        return (torch.load(file) if file.is_file() else self.held[name],)


class Save(Sink):
    """What a node gave, in a file that the client reads: tensors, and objects by their fields and properties."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        slots = {f"slot{i}": (AnyType("*"), {}) for i in range(SLOTS)}
        return {"required": {"name": ("STRING", {})}, "optional": slots}

    def run(self, name: str, **slots: Any) -> dict[str, Any]:
        torch.save([plain(slots[slot]) for slot in sorted(slots)], BASE / f"{name}.saved")
        return {}


class Weights(Load):
    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def run(self) -> dict[str, Any]:
        return {"ui": {"told": [cells.weights(self.held["m"])]}}


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, str | int | float):
        return value
    data = [k for k in dir(value) if not k.startswith("_") and not callable(getattr(value, k, print))]
    return SimpleNamespace(**{k: plain(getattr(value, k)) for k in data})


OURS = {"MGCheck_Load": Load, "MGTest_Given": Given, "MGCheck_Save": Save, "MGCheck_Weights": Weights}
nodes.NODE_CLASS_MAPPINGS.update(OURS)
NODE_CLASS_MAPPINGS: dict[str, Any] = {}  # the host looks for it
