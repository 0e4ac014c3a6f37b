"""Marks and the host of all tests; support/bootstrap.py brings up the host and the pack."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from support.bootstrap import BASE
from support.paths import LAB_NAME, LAB_PACK, PACK, ROOT

if TYPE_CHECKING:
    from support.executor import Host

MARKS = {"unit": "pure tensors", "host": "the real host in this process", "e2e": "a real server"}


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
    from support.executor import Host

    packs = {LAB_NAME: LAB_PACK}
    if (ROOT / "__init__.py").is_file():
        packs[PACK] = ROOT
    made = Host(BASE, packs)
    gc.freeze()  # the host collects garbage with every prompt, and half of the time would go into what was imported
    yield made
    made.close()
