"""Safetensors files that a reader never sees half written, and that cannot harm who reads them."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

TEMPORARY = ".memorization_guard-"  # how the names of files begin that are not for long
DAY = 24 * 3600  # seconds
ABANDONED = {".partial": DAY, ".unfinished": 30 * DAY}  # ending of such a name -> after how long nobody needs it


def write_safely(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, str]) -> None:
    """Write a file. An existing one is replaced only when the new one is complete.

    Raises ValueError, with a message for artists, if the folder or the disk does not allow it.
    """
    partial = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}.partial")  # two savers never share it
    try:
        # A slice of a larger tensor shares its storage, which safetensors refuses to write: hence the clones.
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, str(partial), metadata=facts)
        with partial.open("rb+") as written:
            os.fsync(written.fileno())  # else a power cut could leave an empty file under the final name
        partial.chmod(0o666 & ~umask())  # safetensors writes files that only their owner can read
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{path} cannot be written ({why})") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read_safely(path: Path, kind: str, names: Collection[str]) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata, and the tensors of these names; no tensors if the metadata tells of another kind.

    Raises ValueError, with a message for artists.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata() or {}
            ours = set(file.keys()) if facts.get("kind") == kind else set()
            # Copies: a tensor of a mapped file kills the process when the file is replaced by a shorter one.
            return facts, {name: file.get_tensor(name).clone() for name in ours & set(names)}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"it is not a safetensors file, or it is damaged ({error})") from None


def sweep(folder: Path) -> None:
    """Remove what a process that was killed has left behind; one that still works has written lately."""
    for ending, seconds in ABANDONED.items():
        for old in folder.glob(f"{TEMPORARY}*{ending}"):
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > seconds:
                    old.unlink()


def umask() -> int:
    """The process's own; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def to_bytes(texts: Iterable[str]) -> Tensor:
    """Texts as a tensor: a header would be too small for a million of them."""
    return torch.frombuffer(bytearray(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def from_bytes(data: Tensor) -> tuple[str, ...]:
    """Raises ValueError if it does not hold texts."""
    texts = json.loads(data.numpy().tobytes())
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("its captions or names are not a list of texts")
    return tuple(texts)
