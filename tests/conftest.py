"""Collection of all tests."""

import pytest

from support.paths import ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Browser tests last: Playwright keeps an event loop running in this thread, and the host's own
    # asyncio.run refuses to work beside it.
    items.sort(key=lambda item: "e2e" in item.path.relative_to(ROOT / "tests").parts)
    for item in items:
        for node in item.listchain():
            if isinstance(node, pytest.Package) and node.path == ROOT:
                # It would import our __init__.py by the folder's name, its parent first on the path.
                node.setup = lambda: None  # type: ignore[method-assign]
