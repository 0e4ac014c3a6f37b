"""Reference sets as safetensors: numbers and text, never pickle.

Tensors: `features`, `thumbnails` where there are any, `captions` and `names` as UTF-8 JSON in bytes (a
header would be too small for a million of them). Metadata: everything else, as strings.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..mitigation.references.reference_set import VERSION, ReferenceSet

KIND = "memorization_guard.references"
TENSORS = {"features", "captions", "names", "thumbnails"}


def save_references(references: ReferenceSet, path: Path) -> None:
    """Write the set; an existing file is replaced only by a whole one."""
    tensors = {
        "features": references.features.contiguous(),
        "captions": _text(references.captions),
        "names": _text(references.names),
    }
    if references.thumbnails is not None:
        tensors["thumbnails"] = references.thumbnails.contiguous()
    facts = {
        "kind": KIND,
        "version": str(references.version),
        "metric": references.metric,
        "shape": json.dumps(list(references.shape)),
        "descriptor_name": references.descriptor_name,
        "descriptor_hash": references.descriptor_hash,
        "model_hash": references.model_hash,
        "alpha": repr(references.alpha),
        "k": str(references.k),
    }
    partial = path.with_suffix(".partial")
    try:
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, str(partial), metadata=facts)
        _sort_metadata(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_references(path: Path) -> ReferenceSet:
    """Read a set. Raises ValueError, worded for an artist, if the file holds none or a newer one."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            ours = set(file.keys()) if facts.get("kind") == KIND else set()
            tensors = {name: file.get_tensor(name) for name in ours & TENSORS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"it is not a safetensors file, or a damaged one ({error})") from None
    if not tensors:
        raise ValueError("it is a safetensors file, but not one that Save References wrote")
    try:
        version = int(facts["version"])
        if version > VERSION:
            raise ValueError(f"it was saved by a newer version of this pack (format {version}): update the pack")
        features = tensors["features"]
        if not torch.isfinite(features).all():
            raise ValueError("it holds values that are not numbers")
        return ReferenceSet(
            metric=facts["metric"],
            features=features,
            shape=tuple(int(side) for side in json.loads(facts["shape"])),
            captions=_lines(tensors["captions"]),
            names=_lines(tensors["names"]),
            thumbnails=tensors.get("thumbnails"),
            descriptor_name=facts.get("descriptor_name", ""),
            descriptor_hash=facts.get("descriptor_hash", ""),
            model_hash=facts.get("model_hash", ""),
            alpha=float(facts["alpha"]),
            k=int(facts["k"]),
            version=version,
        )
    except (
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
        json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order, in place: safetensors writes it in another one each time; equal sets, equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        sorted_header = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(sorted_header) <= size:  # the same characters; padded with spaces, as the format does it
            file.seek(8)
            file.write(sorted_header.ljust(size))


def _text(lines: tuple[str, ...]) -> Tensor:
    return torch.frombuffer(bytearray(json.dumps(list(lines)).encode()), dtype=torch.uint8)


def _lines(data: Tensor) -> tuple[str, ...]:
    lines = json.loads(data.numpy().tobytes())
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError("its captions or names are no list of texts")
    return tuple(lines)
