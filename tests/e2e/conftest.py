"""One real server for all end-to-end tests, and one browser page on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.frontend.page import BROWSERS, Page, find_browser
from support.paths import PACK_NAME
from support.server import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For two workers that take equally long: one gets most browser tests, the other what needs only a server."""
    templates = [item for item in items if "test_template[classic" in item.nodeid]
    moved = templates[: len(templates) // 2]
    for item in items:
        browser = "opened" in getattr(item, "fixturenames", ()) and item not in moved
        item.add_marker(pytest.mark.xdist_group("browser" if browser else "server"))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the browser needs the other core: two threads would wait for each other
        with Server() as running:
            yield running


@pytest.fixture(scope="session")
def opened(server: Server) -> Iterator[Page]:
    if find_browser() is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}")
    with Page(server) as page:
        yield page


def checked(page: Page, nodes2: bool) -> Iterator[Page]:
    """The page with one renderer; the test fails if one of the pack's own scripts reports an error."""
    page.use(nodes2)
    page.clear_errors()
    yield page
    assert page.console_errors(f"/{PACK_NAME}/") == []


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The page with the classic renderer."""
    yield from checked(opened, nodes2=False)


@pytest.fixture(scope="session", params=["classic", "nodes2"])
def renderer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def either(opened: Page, renderer: str) -> Iterator[Page]:
    """The page with one renderer, then with the other."""
    yield from checked(opened, nodes2=renderer == "nodes2")


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where the screenshots go; git ignores it."""
    folder = Path(__file__).parent / "artefacts"
    folder.mkdir(exist_ok=True)
    return folder
