"""What every test stands on: the host on the CPU, in a folder of its own, and the pack by its name.

Run by `.host/python -m pytest` (see tools/provision.py), which puts the host and tests/ on the path.
The repository itself must stay off it: our `nodes/` and the host's `nodes.py` share a name.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if importlib.util.find_spec("comfy") is None:
    raise pytest.UsageError("No ComfyUI on the path: use `make test` or `.host/python -m pytest tests`.")

import torch
from comfy.cli_args import args

if TYPE_CHECKING:
    from host.executor import Host

ROOT = Path(__file__).resolve().parent.parent
PACK = "memorization_guard"
MARKS = {"unit": "pure tensors", "host": "the real host in this process", "e2e": "a real server"}
BASE = Path(tempfile.mkdtemp(prefix="memorization-guard-tests-"))

# Two threads wait for each other on a busy machine: the exact model is then 20 to 100 times slower.
torch.set_num_threads(int(os.environ.get("MG_TEST_THREADS", "1")))
args.cpu = True
args.base_directory = str(BASE)  # read once, when the host's folder_paths is imported
# As the host's main.py: nodes.py puts comfy/ first on the path, where `utils` is another module.
importlib.import_module("utils.extra_config")


def register_pack() -> None:
    """Import the repository as the package `memorization_guard`, whatever its folder is called."""
    init = ROOT / "__init__.py"
    if PACK in sys.modules or not init.is_file():
        return
    spec = importlib.util.spec_from_file_location(PACK, init, submodule_search_locations=[str(ROOT)])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)


register_pack()


def pytest_configure(config: pytest.Config) -> None:
    for name, what in MARKS.items():
        config.addinivalue_line("markers", f"{name}: {what} (every test under tests/{name})")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Browser tests last: Playwright keeps an event loop running in this thread, and the host's own
    # asyncio.run refuses to work beside it.
    items.sort(key=lambda item: "e2e" in item.path.relative_to(ROOT / "tests").parts)
    for item in items:
        for node in item.listchain():
            if isinstance(node, pytest.Package) and node.path == ROOT:
                # It would import our __init__.py by the folder's name, its parent first on the path.
                node.setup = lambda: None  # type: ignore[method-assign]
        for name in MARKS:
            if name in item.path.relative_to(ROOT / "tests").parts[:-1]:
                item.add_marker(name)


def pytest_unconfigure() -> None:
    shutil.rmtree(BASE, ignore_errors=True)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The host with its own nodes, the lab's and, once there is one, the pack's."""
    from host.executor import Host

    packs = {"memorization_guard_lab": ROOT / "tests" / "lab" / "pack"}
    if (ROOT / "__init__.py").is_file():
        packs[PACK] = ROOT
    made = Host(BASE, packs)
    gc.freeze()  # the host collects garbage with every prompt, and half of the time would go into what was imported
    yield made
    made.close()
