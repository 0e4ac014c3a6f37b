"""Reference sets as safetensors: numbers and text, never pickle.

Tensors: `features`, `thumbnails` where there are any, `captions` and `names` as UTF-8 JSON in bytes (a header would be
too small for a million of them). Metadata: everything else, as strings.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..mitigation.references.reference_set import ReferenceSet

KIND = "memorization_guard.references"
VERSION = 1
FACTS = ("metric", "descriptor_name", "descriptor_hash", "model_hash")  # fields of a set that are texts
TENSORS = {"features", "captions", "names", "thumbnails"}
DAMAGE = (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError, UnicodeDecodeError)


def save_references(references: ReferenceSet, path: Path) -> None:
    """Write the set. An existing file is replaced only when the new one is complete."""
    tensors = {
        "features": references.features,
        "captions": _to_bytes(references.captions),
        "names": _to_bytes(references.names),
    }
    if references.thumbnails is not None:
        tensors["thumbnails"] = references.thumbnails
    facts = {
        "kind": KIND,
        "version": str(VERSION),
        **{name: getattr(references, name) for name in FACTS},
        "shape": json.dumps(references.shape),
        "alpha": repr(references.alpha),
        "k": str(references.k),
    }
    partial = path.with_suffix(".partial")
    try:
        # A slice of a larger tensor shares its storage, which safetensors refuses to write: hence the clones.
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, str(partial), metadata=facts)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_references(path: Path) -> ReferenceSet:
    """Read a set. Raises ValueError, with a message for artists, if the file is not one or is from a newer version."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            ours = set(file.keys()) if facts.get("kind") == KIND else set()
            tensors = {name: file.get_tensor(name) for name in ours & TENSORS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"it is not a safetensors file, or it is damaged ({error})") from None
    if not tensors:
        raise ValueError("it is a safetensors file, but Save References did not write it")
    try:
        version = int(facts["version"])
        if version > VERSION:
            raise ValueError(f"it was saved by a newer version of this pack (format {version}): update the pack")
        if not torch.isfinite(tensors["features"]).all():
            raise ValueError("its features hold NaN or infinite values")
        return ReferenceSet(
            **{name: facts.get(name, "") for name in FACTS},
            features=tensors["features"],
            shape=tuple(int(side) for side in json.loads(facts["shape"])),
            captions=_from_bytes(tensors["captions"]),
            names=_from_bytes(tensors["names"]),
            thumbnails=tensors.get("thumbnails"),
            alpha=float(facts["alpha"]),
            k=int(facts["k"]),
        )
    except DAMAGE as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None


def _to_bytes(texts: tuple[str, ...]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(texts).encode()), dtype=torch.uint8)


def _from_bytes(data: Tensor) -> tuple[str, ...]:
    texts = json.loads(data.numpy().tobytes())
    if not isinstance(texts, list):  # ReferenceSet checks the items
        raise ValueError("its captions or names are not a list of texts")
    return tuple(texts)
