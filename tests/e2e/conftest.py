"""One real server for all end-to-end tests, and one browser page on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ARTEFACTS = Path(__file__).parent / "artefacts"
from support.paths import LAB, ROOT
from support.server import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For two workers: one with the browser, one with all that needs a server only."""
    for item in items:
        browser = "opened" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("browser" if browser else "server"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the browser needs the other core: two threads would wait for each other
        with Server() as running:
            yield running


@pytest.fixture(scope="session")
def opened(server: Server) -> Iterator:
    from support.browser import BROWSERS, Page, find_browser

    if find_browser() is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}")
    with Page(server) as page:
        yield page


@pytest.fixture
def page(opened):
    """The page with the classic renderer, and no errors yet."""
    opened.use(nodes2=False)
    opened.clear_errors()
    return opened


@pytest.fixture(scope="session", params=["classic", "nodes2"])
def renderer(request) -> str:
    return request.param


@pytest.fixture
def either(opened, renderer: str):
    """The page with one renderer, then with the other, and no errors yet."""
    opened.use(nodes2=renderer == "nodes2")
    opened.clear_errors()
    return opened


@pytest.fixture(scope="session")
def pack() -> Path:
    """The checkout, once it is a pack."""
    if not (ROOT / "__init__.py").is_file():
        pytest.skip("the pack has no __init__.py yet")
    return ROOT


@pytest.fixture(scope="session")
def checkpoint() -> str:
    """The name of the lab checkpoint, as the host lists it."""
    files = sorted(LAB.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    if not files:
        pytest.skip("no lab checkpoint: lab/ holds no .safetensors")
    return files[-1].name


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where the screenshots go; git ignores it."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS
