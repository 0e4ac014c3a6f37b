"""Reference sets as safetensors: numbers and text, never pickle.

Tensors: `features`, `thumbnails` where there are any, `captions` and `names` as UTF-8 JSON in bytes (a header would be
too small for a million of them). Metadata: everything else, as strings.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.wording import clean, shown

KIND = "memorization_guard.references"
PARTIAL, ABANDONED = ".memorization_guard-", 24 * 3600  # how the names of unfinished files begin; seconds
VERSION = 1
FACTS = ("metric", "descriptor_name", "descriptor_hash", "model_hash")  # fields of a set that are texts
TENSORS = {"features", "captions", "names", "thumbnails"}
DAMAGE = (KeyError, TypeError, AttributeError, OverflowError, RecursionError, json.JSONDecodeError, UnicodeDecodeError)


def save_references(references: ReferenceSet, path: Path) -> None:
    """Write the set. An existing file is replaced only when the new one is complete.

    Raises ValueError, with a message for artists, if the folder or the disk does not allow it.
    """
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
    _sweep(path.parent)
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}.partial")  # two savers never share it
    try:
        # A slice of a larger tensor shares its storage, which safetensors refuses to write: hence the clones.
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, str(partial), metadata=facts)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())  # else a power cut could leave an empty file under the final name
        partial.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner can read
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path} cannot be written ({why})") from None
    finally:
        partial.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what a saver that was killed has left behind; a saver that still works is younger."""
    for old in folder.glob(f"{PARTIAL}*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > ABANDONED:
                old.unlink()


def _umask() -> int:
    """The process's own; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def load_references(path: Path) -> ReferenceSet:
    """Read a set. Raises ValueError, with a message for artists, if the file is not one or is from a newer version."""
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            ours = set(file.keys()) if facts.get("kind") == KIND else set()
            # Copies: a tensor of a mapped file kills the process when the file is replaced by a shorter one.
            tensors = {name: file.get_tensor(name).clone() for name in ours & TENSORS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"it is not a safetensors file, or it is damaged ({error})") from None
    if not tensors:
        raise ValueError("it is a safetensors file, but Save References did not write it")
    try:
        version = int(facts["version"])
        if version > VERSION:
            raise ValueError(
                f"it was saved by a newer version of this pack (format {shown(facts['version'])[:20]}): update the pack"
            )
        if not torch.isfinite(tensors["features"]).all():
            raise ValueError("its features hold NaN or infinite values")
        return ReferenceSet(
            **{name: facts.get(name, "") for name in FACTS},
            features=tensors["features"],
            shape=tuple(int(side) for side in json.loads(facts["shape"])),
            captions=tuple(map(clean, _from_bytes(tensors["captions"]))),
            names=tuple(map(shown, _from_bytes(tensors["names"]))),
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
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("its captions or names are not a list of texts")
    return tuple(texts)
