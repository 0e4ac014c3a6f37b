"""The pack as artists get it: the registry's zip or a git clone, under any folder name, updated and removed."""

import json
import os
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support.frontend.page import BROWSERS, Page, find_browser
from support.paths import ROOT
from support.server import Server
from tools import release

ZIPPED = ("Memorization Guard (1)", "memorization-guard-main", "memorization.guard v0.1 [new] {50 %} é")
CLONED = "MemorizationGuard_git"
FOLDERS = (*ZIPPED, CLONED)
NODES = 21
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the zip is made of what git tracks"),
]


def tree(base: Path) -> set[str]:
    """Every file and folder; the host's own logs are named by port and by start."""
    found = {path.relative_to(base).as_posix() for path in base.rglob("*")}
    return {name for name in found if not re.fullmatch(r"(server|user/comfyui\w*(\.prev\d?)?)\.log", name)}


def outside(names: set[str]) -> set[str]:
    ours = tuple(f"custom_nodes/{folder}" for folder in FOLDERS)
    return {name for name in names if not name.startswith(ours)}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("registry") / "pack.zip"
    release.build(target)
    return target


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("an artist's ComfyUI")


@pytest.fixture(scope="module")
def untouched(base: Path) -> set[str]:
    with Server(base, lab=False, pack=False) as server:
        assert not [name for name in server.object_info() if name.startswith("MG_")]
    return tree(base)


@pytest.fixture(scope="module")
def server(base: Path, archive: Path, untouched: set[str]) -> Iterator[Server]:
    """One start with the pack in all folders at once: each is loaded by itself, the last one's nodes win."""
    for folder in ZIPPED:
        with zipfile.ZipFile(archive) as file:
            file.extractall(base / "custom_nodes" / folder)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(base / "custom_nodes" / CLONED)], check=True)
    with Server(base, lab=False, pack=False) as running:
        yield running


def test_every_copy_loads_with_all_its_nodes(server: Server) -> None:
    log = server.log_text()
    assert server.import_failures() == [], log
    assert "are missing, because this ComfyUI differs" not in log
    # A node whose schema the host cannot describe is left out with this line, and no other sign.
    assert "An error occurred while retrieving information for the 'MG_" not in log
    for folder in FOLDERS:
        assert f"seconds: {server.base / 'custom_nodes' / folder}" in log
    ours = {name: info for name, info in server.object_info().items() if name.startswith("MG_")}
    assert len(ours) == NODES
    assert len({info["python_module"] for info in ours.values()}) == 1
    assert next(iter(ours.values()))["python_module"].removeprefix("custom_nodes.") in FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_page_help_images_and_templates_are_served_under_the_folders_name(server: Server, folder: str) -> None:
    name = quote(folder)
    scripts = server.call("GET", "/extensions").json()
    assert [s for s in scripts if s.startswith(f"/extensions/{name}/")] == [f"/extensions/{name}/memorization_guard.js"]
    files = [path.relative_to(ROOT / "web").as_posix() for path in (ROOT / "web").rglob("*.*")]
    for file in files:
        answer = server.call("GET", f"/extensions/{name}/{file}")
        assert answer.ok and answer.headers["Cache-Control"] == "no-cache", file
    assert len([file for file in files if file.startswith("docs/MG_")]) == NODES
    templates = server.call("GET", "/api/workflow_templates").json()[folder]
    assert sorted(templates) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    for template in templates:
        address = f"/api/workflow_templates/{name}/{quote(template)}"
        assert json.loads(server.call("GET", f"{address}.json").content)["nodes"]
        assert server.call("GET", f"{address}.jpg").content.startswith(b"\xff\xd8")
    for address in ("extensions", "api/workflow_templates"):  # and nothing beside them
        for file in ("nothing.md", "..%2fpyproject.toml", "..%2f..%2f..%2fserver.log", "%2fetc%2fpasswd"):
            assert not server.call("GET", f"/{address}/{name}/{file}").ok


def test_a_start_an_update_and_an_uninstall_leave_nothing(server: Server, archive: Path, untouched: set[str]) -> None:
    """Nothing but Python's own cache. The last one with this server: it stops it."""
    assert outside(tree(server.base)) == untouched
    custom_nodes = server.base / "custom_nodes"
    with zipfile.ZipFile(archive) as file:
        packed = set(file.namelist())
        for root in (custom_nodes / folder for folder in ZIPPED):
            files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
            assert {name for name in files - packed if "__pycache__/" not in name} == set()
        server.stop()
        shutil.rmtree(custom_nodes / ZIPPED[0])  # the newer version takes the older one's place
        file.extractall(custom_nodes / ZIPPED[0])
    assert outside(tree(server.base)) == untouched
    for folder in FOLDERS:
        shutil.rmtree(custom_nodes / folder)
    assert tree(server.base) == untouched


@pytest.mark.skipif(find_browser() is None, reason=f"no browser found: install one of {', '.join(BROWSERS)}")
@pytest.mark.parametrize("cured", [True, False])
def test_a_page_does_not_mix_two_versions(archive: Path, tmp_path: Path, cured: bool) -> None:
    """A browser keeps old files for a tenth of their age. Without the cure the page dies, or this proves nothing."""
    pack = tmp_path / "base" / "custom_nodes" / "memorization-guard"
    shutil.unpack_archive(archive, pack, "zip")
    routes, header = pack / "adapter" / "routes.py", 'response.headers["Cache-Control"] = "no-cache"'

    def rewrite(file: Path, old: str, new: str, days: int) -> None:
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace(old, new), encoding="utf-8")
        os.utime(file, (time.time() - days * 24 * 3600,) * 2)

    def update(new: str, days: int) -> None:
        """An export has another name everywhere, and the help holds it, too."""
        for file in [*pack.glob("web/*.mjs"), *pack.glob("web/*.js"), pack / "web" / "docs" / "MG_Guard.md"]:
            rewrite(file, "classOf", new, days)

    assert header in routes.read_text(encoding="utf-8")
    rewrite(routes, header, header if cured else "pass", 0)
    (pack / "web" / "docs" / "MG_Guard.md").write_text("classOf", encoding="utf-8")
    update("classOf", 300)
    with Server(tmp_path / "base", lab=False, pack=False) as server:
        address = "/extensions/memorization-guard"
        if not cured and "Cache-Control" in server.call("GET", f"{address}/graph.mjs").headers:
            pytest.skip("this ComfyUI has a cure of its own")
        with Page(server) as page:
            read = f"() => fetch('{address}/docs/MG_Guard.md').then((answer) => answer.text())"
            assert "classOf" in page.tab.evaluate(read) and page.console_errors("memorization-guard") == []
            update("kindOf", 150)
            page.clear_errors()
            page.open()
            died = "\n".join(page.console_errors("does not provide an export"))
            works = page.tab.evaluate("() => app.extensions.some((e) => e.name === 'MemorizationGuard')")
            helped = "kindOf" in page.tab.evaluate(read)
    assert (works, helped, "classOf" in died or "kindOf" in died) == (cured, cured, not cured), died
