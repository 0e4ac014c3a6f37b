"""LoRA files of the host: which ones a list of names stands for, and models that are patched with them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import comfy.sd
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from .errors import GuardError

FOLDER = "loras"
PATTERN = re.compile(r"[*?]")


@dataclass(frozen=True)
class LoraFile:
    name: str  # as the host lists it
    path: Path

    @property
    def identity(self) -> str:
        """What changes when the file is replaced."""
        facts = self.path.stat()
        return f"{self.name} {facts.st_size} {facts.st_mtime_ns}"


def lora_files(text: str, node: str) -> list[LoraFile]:
    """The files that the lines of a text name, each once. Raises GuardError for a line that names none."""
    known = folder_paths.get_filename_list(FOLDER)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise GuardError(
            f"{node}: `loras` is empty. Write one LoRA file per line, as ComfyUI lists them; my_lora-* stands for all "
            "files whose names begin with my_lora-."
        )
    names = dict.fromkeys(name for line in lines for name in _named(line, known, node))
    return [LoraFile(name, Path(folder_paths.get_full_path_or_raise(FOLDER, name))) for name in names]


def _named(line: str, known: Sequence[str], node: str) -> list[str]:
    """The files that one line names, in their natural order."""
    wanted = line.replace("\\", "/").casefold()
    inside = "/" in wanted  # else the folders before a file's name do not count
    exact = [name for name in known if wanted in _spellings(name, whole=True)]
    if found := exact or [name for name in known if not inside and wanted in _spellings(name, whole=False)]:
        if len(found) > 1:
            raise GuardError(f"{node}: `loras`: {line!r} can be {' or '.join(map(repr, found))}. Write one of them.")
        return found
    if not PATTERN.search(line):
        there = f"{len(known)} files" if known else "nothing"
        raise GuardError(
            f"{node}: `loras`: {line!r} is not in models/loras, where ComfyUI finds {there}. Copy the name from Load "
            "LoRA, and press R after adding a file."
        )
    pattern = wanted.replace("[", "[[]")
    found = [n for n in known if any(fnmatch.fnmatchcase(s, pattern) for s in _spellings(n, whole=inside))]
    if not found:
        raise GuardError(f"{node}: `loras`: no file in models/loras fits {line!r}. Press R after adding files.")
    return sorted(found, key=natural_order)


def _spellings(name: str, whole: bool) -> tuple[str, str]:
    """A file's name with and without its ending; `whole`: with its folders."""
    path = PurePosixPath(name.replace("\\", "/").casefold())
    return (str(path), str(path.with_suffix(""))) if whole else (path.name, path.stem)


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Epoch 2 before epoch 10, and the file without a number, which trainers write last, after both."""
    stem = name.rpartition(".")[0] or name
    parts = re.split(r"(\d+)", f"{stem.casefold()}\U0010ffff")
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def load_lora(file: LoraFile, node: str) -> dict[str, Tensor]:
    """The tensors of a file, as Load LoRA reads it. Raises GuardError."""
    try:
        return comfy.utils.load_torch_file(str(file.path), safe_load=True)
    except Exception as error:  # of any kind: the host reads several formats
        why = " ".join(str(error).split())[:200]
        raise GuardError(
            f"{node}: `loras`: {file.name!r} cannot be read ({why}). Remove it, or save it again."
        ) from None


def with_lora(
    model: ModelPatcher, clip: CLIP, weights: dict[str, Tensor], strength: float, name: str, node: str
) -> tuple[ModelPatcher, CLIP]:
    """Both as Load LoRA patches them, with one strength. Raises GuardError if the LoRA has no effect on either."""
    patched, encoder = comfy.sd.load_lora_for_models(model, clip, weights, strength, strength)
    if _patches(patched) == _patches(model) and _patches(encoder.patcher) == _patches(clip.patcher):
        raise GuardError(
            f"{node}: `loras`: {name!r} fits no layer of `model` or `clip`. It was made for another kind of model: "
            "choose that checkpoint, or remove the line."
        )
    return patched, encoder


def _patches(model: ModelPatcher) -> int:
    return sum(len(each) for each in model.patches.values())
