"""Runs the tests of the modules that need no page with node's test runner. tests/e2e tests the others in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT

MODULES = sorted((ROOT / "web").glob("*.[jm]*"))


def test_modules_by_node() -> None:
    assert [path.name for path in (ROOT / "web").rglob("*.js")] == ["memorization_guard.js"], "the host loads each"
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is missing: tests/web/*.test.mjs were not run")
    files = sorted(map(str, (ROOT / "tests" / "web").glob("*.test.mjs")))
    done = subprocess.run([node, "--test", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[1]) >= 18


@pytest.mark.parametrize("path", MODULES, ids=[path.name for path in MODULES])
def test_nothing_reaches_the_page_as_markup_and_nothing_of_the_host_is_replaced(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source)
    assert not re.search(r"\.prototype\b|Object\.defineProperty|window\.\w+ =|globalThis\.\w+ =", source)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", source)
    assert "// @ts-check" in source
