"""What a result was made with, told so that it is recognised after a restart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths
import torch
from torch import Tensor

from ..mitigation.references.weights_fingerprint import weights_fingerprint

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

TENSORS = 200  # of a network that are looked at


def graph_identity(graph: Mapping[str, Any] | None, node: str | None, inputs: Iterable[str]) -> str:
    """A hash of the nodes before these inputs of a node, of their values, and of what is in the files that they name.

    It does not depend on node ids.
    """
    known: dict[str, str] = {}

    def of(value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and graph and value[0] in graph:
            if value[0] not in known:
                known[value[0]] = ""  # a circle ends here
                made = graph[value[0]]
                told = [
                    made["class_type"],
                    {name: of(one) for name, one in sorted(made["inputs"].items())},
                    _read(made),
                ]
                known[value[0]] = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
            return [known[value[0]], value[1]]
        return value

    own = (graph or {}).get(node or "", {"inputs": {}})["inputs"]
    return hashlib.sha256(json.dumps([of(own.get(name)) for name in inputs]).encode()).hexdigest()


def _read(made: Mapping[str, Any]) -> Any:
    """What tells that a node reads other data under the same names, such as an image that was overwritten.

    That is what the node itself has told the host, which writes it into the graph: a hash of the file, for Load Image.
    A node that tells nothing may still name files of the input directory.
    """
    told = made.get("is_changed")
    values = told if isinstance(told, list) else [told]
    if not all(value is None or (isinstance(value, float) and math.isnan(value)) for value in values):
        return told
    return [_file_facts(value) for _, value in sorted(made["inputs"].items()) if isinstance(value, str)]


def _file_facts(name: str) -> str:
    """What changes when the file is replaced; "" if the text names none."""
    try:
        facts = Path(folder_paths.get_annotated_filepath(name)).stat() if name else None
    except (OSError, ValueError):
        return ""
    return f"{facts.st_size} {facts.st_mtime_ns}" if facts else ""


def networks_fingerprint(model: ModelPatcher, clip: CLIP, vae: VAE) -> str:
    """For `same_weights`: the networks as their files have them, and the LoRAs that were put on them before."""
    weights: dict[str, Tensor] = {}
    for part, patcher in (("model", model), ("clip", getattr(clip, "patcher", None)), ("vae", vae.patcher)):
        if patcher is not None:
            # What lies in the network at the moment may have the patches of another run in it.
            own = {**patcher.model.state_dict(), **{name: one.weight for name, one in patcher.backup.items()}}
            for held in (own, _patches(patcher)):
                # Quantized weights are of other types, and only what made them is compared.
                plain = sorted(name for name, one in held.items() if type(one) in (Tensor, torch.nn.Parameter))
                weights |= {f"{part}.{name}": held[name] for name in plain[:: -(-len(plain) // TENSORS) or 1]}
    return weights_fingerprint(weights)


def _patches(patcher: ModelPatcher) -> dict[str, Any]:
    """The tensors of the patches on a network, each at its strength."""
    found = {}
    for key, patches in patcher.patches.items():
        for i, (strength, value, *_) in enumerate(patches):
            parts = getattr(value, "weights", value)  # of an adapter, or a tuple of the patch's kind and its tensors
            for j, part in enumerate(parts if isinstance(parts, tuple | list) else [parts]):
                for k, one in enumerate(part if isinstance(part, tuple | list) else [part]):
                    if isinstance(one, Tensor):
                        found[f"patch.{key}.{i}.{j}.{k}"] = one.flatten()[:64].float() * float(strength)
    return found


def tensor_identity(value: Tensor | None) -> str:
    """A hash of a tensor's exact values."""
    if value is None:
        return ""
    raw = value.detach().contiguous().cpu().float().numpy().tobytes()
    return f"{tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
