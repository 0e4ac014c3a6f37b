"""Reference sets as safetensors: numbers and text, never pickle.

Tensors: `features`, `thumbnails` where there are any, `captions` and `names` as UTF-8 JSON in bytes. Metadata:
everything else, as strings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.wording import clean, shown
from .safe_file import from_bytes, read_safely, sweep, to_bytes, write_safely

KIND = "memorization_guard.references"
VERSION = 1
FACTS = ("metric", "descriptor_name", "descriptor_hash", "model_hash")  # fields of a set that are texts
SIDES = {"latent": (2, 4), "nL2": (3, 3), "descriptor": (1, 1)}  # of a reference's shape: at least, at most
TENSORS = {"features", "captions", "names", "thumbnails"}
DAMAGE = (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError, UnicodeDecodeError)


def save_references(references: ReferenceSet, path: Path) -> None:
    """Write the set. An existing file is replaced only when the new one is complete.

    Raises ValueError, with a message for artists, if the folder or the disk does not allow it.
    """
    tensors = {
        "features": references.features,
        "captions": to_bytes(references.captions),
        "names": to_bytes(references.names),
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
    sweep(path.parent)
    write_safely(path, tensors, facts)


def load_references(path: Path) -> ReferenceSet:
    """Read a set. Raises ValueError, with a message for artists, if the file is not one or is from a newer version."""
    facts, tensors = read_safely(path, KIND, TENSORS)
    if not tensors:
        raise ValueError("it is a safetensors file, but Save References did not write it")
    texts: dict[str, Any] = {name: facts.get(name, "") for name in FACTS}
    try:
        version = int(facts["version"])
        if version > VERSION:
            raise ValueError(
                f"it was saved by a newer version of this pack (format {shown(facts['version'])[:20]}): update the pack"
            )
        if not torch.isfinite(tensors["features"]).all():
            raise ValueError("its features hold NaN or infinite values")
        shape = tuple(int(side) for side in json.loads(facts["shape"]))
        least, most = SIDES.get(texts["metric"], (0, len(shape)))
        if not least <= len(shape) <= most:
            raise ValueError(f"a reference of the metric {texts['metric']} cannot have the shape {shape}")
        return ReferenceSet(
            **texts,
            features=tensors["features"],
            shape=shape,
            captions=tuple(map(clean, from_bytes(tensors["captions"]))),
            names=tuple(map(shown, from_bytes(tensors["names"]))),
            thumbnails=tensors.get("thumbnails"),
            alpha=float(facts["alpha"]),
            k=int(facts["k"]),
        )
    except DAMAGE as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None
