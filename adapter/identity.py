"""What a result was made with, told so that it is recognised after a restart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..mitigation.references.weights_fingerprint import weights_fingerprint

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.sd import CLIP, VAE

TENSORS = 200  # of a network that are looked at


def graph_identity(graph: Mapping[str, Any] | None, node: str | None, inputs: Iterable[str]) -> str:
    """A hash of the nodes before these inputs of a node and of their values, which does not depend on node ids."""
    known: dict[str, str] = {}

    def of(value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and graph and value[0] in graph:
            if value[0] not in known:
                known[value[0]] = ""  # a circle ends here
                made = graph[value[0]]
                told = [made["class_type"], {name: of(one) for name, one in sorted(made["inputs"].items())}]
                known[value[0]] = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
            return [known[value[0]], value[1]]
        return value

    own = (graph or {}).get(node or "", {"inputs": {}})["inputs"]
    return hashlib.sha256(json.dumps([of(own.get(name)) for name in inputs]).encode()).hexdigest()


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
