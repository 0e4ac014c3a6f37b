"""One real server for all end-to-end tests, and one browser page on it."""

import os
from collections.abc import Iterator

import pytest

from support.frontend.page import BROWSERS, Page, find_browser
from support.paths import PACK_NAME
from support.server import Server

# For every server. Two threads would wait for each other on a busy machine; memory that malloc gives back and takes
# again costs more than the arithmetic on it (support/bootstrap.py).
os.environ["OMP_NUM_THREADS"] = os.environ["MALLOC_ARENA_MAX"] = "1"
os.environ |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def opened(server: Server) -> Iterator[Page]:
    if find_browser() is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}")
    with Page(server) as page:
        yield page


def checked(page: Page, nodes2: bool) -> Iterator[Page]:
    """The page with this renderer at first; the test fails if one of the pack's own scripts reports an error."""
    page.use(nodes2)
    page.clear_errors()
    yield page
    assert page.console_errors(f"/{PACK_NAME}/") == []


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    yield from checked(opened, nodes2=False)


@pytest.fixture
def vue(opened: Page) -> Iterator[Page]:
    yield from checked(opened, nodes2=True)
