"""ComfyUI in this process, in a folder of its own, with the pack and the lab's pack: for benchmarks and tools.

The host reads its command line and its folders once, when it is first imported; so import nothing of the host before.
"""

import importlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from support.graphs.words import Host
from support.paths import LAB_NAME, LAB_PACK, PACK, ROOT


def configure(base: Path, options: str = "") -> None:
    """Prepare the host's modules for import. `options`: as for its main.py, for example "--lowvram"."""
    wanted = [*shlex.split(options), "--base-directory", str(base.resolve())]
    accelerator = getattr(torch, "accelerator", torch.cuda)  # torch 2.6 and later
    if not accelerator.is_available() and not {"--cpu", "--directml"} & set(wanted):
        wanted.append("--cpu")  # the host raises on a machine without an accelerator
    own, sys.argv = sys.argv, [sys.argv[0], *wanted]
    try:
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.cli_args")
    finally:
        sys.argv = own
    # In the order of the host's main.py: its nodes.py puts comfy/ first on the path, where `utils` is another module.
    importlib.import_module("utils.extra_config")


def start(base: Path, options: str = "", packs: Mapping[str, Path] | None = None) -> Host:
    """The host with our pack and `packs` (name -> folder); without `packs`, the lab's."""
    base.mkdir(parents=True, exist_ok=True)
    configure(base, options)
    executor = importlib.import_module("support.executor")
    importlib.import_module("comfy.utils").set_progress_bar_enabled(False)
    return executor.Host(base, {**({LAB_NAME: LAB_PACK} if packs is None else packs), PACK: ROOT})


@contextmanager
def lab_host(options: str = "--cpu", threads: int = 1) -> Iterator[Host]:
    """The host with both packs in a folder that is deleted afterwards."""
    torch.set_num_threads(threads)  # two threads wait for each other when the machine does anything else
    base, made = Path(tempfile.mkdtemp(prefix="memorization-guard-")), None
    try:
        made = start(base, options)
        yield made
    finally:
        if made is not None:
            made.close()
        shutil.rmtree(base, ignore_errors=True)
