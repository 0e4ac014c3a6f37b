"""An update meets a browser that has kept the old version's files for months: the page must not mix the two."""

import os
import time
import zipfile
from pathlib import Path

import pytest

from support.frontend.page import BROWSERS, Page, find_browser
from support.paths import ROOT
from support.server import Server
from tools import release

MONTHS = 300 * 24 * 3600  # seconds: a browser keeps a file for a tenth of its age when nobody says for how long
NAME, HELP = "memorization-guard", "docs/MG_Guard.md"
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the zip is made of what git tracks"),
    pytest.mark.skipif(find_browser() is None, reason=f"no browser found: install one of {', '.join(BROWSERS)}"),
]


def age(web: Path, seconds: int) -> None:
    for file in web.rglob("*.*"):
        os.utime(file, (time.time() - seconds,) * 2)


def update(web: Path) -> None:
    """The newer version: an export has another name everywhere, and the help has one line more."""
    for file in [*web.glob("*.mjs"), *web.glob("*.js")]:
        file.write_text(file.read_text(encoding="utf-8").replace("classOf", "kindOf"), encoding="utf-8")
    with (web / HELP).open("a", encoding="utf-8") as file:
        file.write("\nof the newer version\n")
    age(web, MONTHS // 2)  # as old as they were when the zip was packed


@pytest.mark.parametrize("cured", [True, False])
def test_a_page_does_not_mix_two_versions(tmp_path: Path, cured: bool) -> None:
    """`cured`: as the pack is. Without it the page dies, or this test would prove nothing."""
    pack = tmp_path / "base" / "custom_nodes" / NAME
    release.build(tmp_path / "pack.zip")
    with zipfile.ZipFile(tmp_path / "pack.zip") as file:
        file.extractall(pack)
    if not cured:
        routes = pack / "adapter" / "routes.py"
        text = routes.read_text(encoding="utf-8")
        assert '"no-cache"' in text
        routes.write_text(text.replace('response.headers["Cache-Control"] = "no-cache"', "pass"), encoding="utf-8")
    age(pack / "web", MONTHS)
    with Server(tmp_path / "base", lab=False, pack=False) as server:
        address = f"/extensions/{NAME}"
        if not cured and "Cache-Control" in server.call("GET", f"{address}/graph.mjs").headers:
            pytest.skip("this ComfyUI has a cure of its own")
        with Page(server) as page:
            read = f"() => fetch('{address}/{HELP}').then((answer) => answer.text())"
            assert page.tab.evaluate(read) and page.console_errors(NAME) == []
            update(pack / "web")
            page.clear_errors()
            page.open()
            died = "\n".join(page.console_errors("does not provide an export"))
            works = page.tab.evaluate("() => app.extensions.some((e) => e.name === 'MemorizationGuard')")
            helped = "of the newer version" in page.tab.evaluate(read)
    assert (works, helped, "classOf" in died or "kindOf" in died) == (cured, cured, not cured), died
