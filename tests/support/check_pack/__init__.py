"""A pack of the host for support.remote_host: models with random weights, and what a run gave as files."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a server has nothing of ours on its path

import comfy.sd
import comfy.utils
import folder_paths
import torch

import support.gradients  # noqa: F401 - adds its nodes
from support.copy_detectors import random_clip_vision
from support.executor import ANY, host_node
from support.families import cells, files, kinds

FAMILIES = {family.name: family for family in [*files.FAMILIES, *files.BUILT, files.LAB]}
PRECISIONS = {p.name: p for p in [*kinds.PRECISIONS.values(), *kinds.STATES.values(), kinds.USUAL]}
BASE = Path(folder_paths.base_path)
SLOTS = 8


HELD: dict[str, Any] = {}  # what was loaded last


@host_node("MGCheck_Load", {name: ("STRING", {}) for name in ("family", "precision", "file")})
def load(family: str, precision: str, file: str) -> dict[str, Any]:
    """Takes a family's file as the model under test; the small lab has a VAE, too."""
    asked, path = PRECISIONS[precision], BASE / file
    HELD.clear()
    HELD.update(FAMILIES[family].given(path, asked))
    if family == files.LAB.name:
        weights = comfy.utils.load_torch_file(str(path))
        vae = comfy.utils.state_dict_prefix_replace(weights, {"first_stage_model.": ""}, filter_keys=True)
        for name, dtype in (("vae", asked.weights), ("exact vae", torch.float64)):
            HELD[name] = comfy.sd.VAE(sd=dict(vae), dtype=dtype)
            HELD[name].process_output = torch.sigmoid  # the host clamps: differences would see the kinks
        HELD["exact vae"].first_stage_model.double().to(HELD["vae"].device)
        HELD["descriptor"] = random_clip_vision(BASE)
    return {}


@host_node("MGTest_Given", {"name": ("STRING", {})}, (ANY,))
def given(name: str) -> tuple[Any]:
    """An object of `load` by its name, or what the client wrote into a file of that name."""
    file = BASE / f"{name}.given"
    if name == "m" and "weights" in os.environ.get("MG_CHECK_FAULT", ""):  # planted, to see that it is found
        next(HELD["m"].model.diffusion_model.parameters()).mul_(1.01)
    return (torch.load(file) if file.is_file() else HELD[name],)


@host_node("MGCheck_Save", {"name": ("STRING", {})}, optional={f"slot{i}": (ANY, {}) for i in range(SLOTS)})
def save(name: str, **slots: Any) -> dict[str, Any]:
    """What a node gave, in a file that the client reads: tensors, and objects by their fields and properties."""
    torch.save([plain(slots[slot]) for slot in sorted(slots)], BASE / f"{name}.saved")
    return {}


@host_node("MGCheck_Weights", {})
def weights() -> dict[str, Any]:
    return {"ui": {"told": [cells.weights(HELD["m"])]}}


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


NODE_CLASS_MAPPINGS: dict[str, Any] = {}  # the host looks for it
