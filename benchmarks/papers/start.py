"""The host for a run outside of tests: on the device that it picks by itself, with its own command line options."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from support.paths import ROOT

if TYPE_CHECKING:
    from support.executor import Host

PACK = "memorization_guard"


def start(base: Path, packs: Mapping[str, Path], options: str = "") -> Host:
    """ComfyUI with our pack and `packs`, its folders in `base`. `options`: as for its main.py, e.g. "--lowvram"."""
    base.mkdir(parents=True, exist_ok=True)
    wanted = [*shlex.split(options), "--base-directory", str(base.resolve())]
    if not _accelerated() and not {"--cpu", "--directml"} & set(wanted):
        wanted.append("--cpu")  # the host dies on a machine without an accelerator
    own, sys.argv = sys.argv, [sys.argv[0], *wanted]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")  # reads the command line once, when it is imported
    finally:
        sys.argv = own
    # As the host's main.py: nodes.py puts comfy/ first on the path, where `utils` is another module.
    importlib.import_module("utils.extra_config")
    executor = importlib.import_module("support.executor")
    importlib.import_module("comfy.utils").set_progress_bar_enabled(False)  # a line a picture is enough
    return executor.Host(base, {PACK: ROOT, **packs})


def _accelerated() -> bool:
    accelerator = getattr(torch, "accelerator", None)  # torch 2.6 and later
    if accelerator is not None:
        return bool(accelerator.is_available())
    return torch.cuda.is_available() or torch.backends.mps.is_available()
