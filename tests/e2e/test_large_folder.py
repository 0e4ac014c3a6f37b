"""A folder of very many images on a real server: a stop, going on from there, and a page that still loads."""

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest
from PIL import Image

from support import graphs
from support.client import Client, PromptError
from support.graphs import node
from support.server import Server

IMAGES = int(os.environ.get("LARGE_FOLDER", "3000"))
FORMATS, A_FOLDER, SIDE = (".png", ".jpg", ".webp"), 1000, 24
PROMPT = {
    "r": node("MG_ReferencesFromFolder", folder="very many", metric="nL2", width=64, height=64),
    "s": graphs.keep("r", "very many"),
    "p": node("PreviewAny", source=["r", 2]),
}
pytestmark = pytest.mark.timeout(300 + IMAGES // 20)


def fill(folder: Path) -> None:
    draw = random.Random(1)
    for i in range(IMAGES):
        inner = folder / f"{i // A_FOLDER:03}"
        inner.mkdir(parents=True, exist_ok=True)
        small = Image.frombytes("RGB", (4, 4), draw.randbytes(48))
        small.resize((SIDE, SIDE)).save(inner / f"{i:06}{FORMATS[i % 3]}")


@contextmanager
def pages(server: Server) -> Iterator[list[float]]:
    """Inside, a page asks for /object_info again and again: the seconds that each took."""
    asked, done, page = list[float](), threading.Event(), Client(server.url)

    def ask() -> None:
        while not done.wait(0.5):
            began = time.monotonic()
            page.object_info()
            asked.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()


def test_a_stopped_run_goes_on_and_the_page_loads_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Server() as server:
        fill(server.base / "input" / "very many")
        kept = server.base / "models" / "memorization_references"
        unfinished = lambda: list(kept.glob(".memorization_guard-*.unfinished"))  # noqa: E731 - one for each thousand
        with pages(server) as before:
            time.sleep(5)
        idle = median(before)
        with pages(server) as meanwhile:
            stopped = server.queue(PROMPT)
            while len(unfinished()) < IMAGES // 2 // 1000:
                time.sleep(0.05)
            began = time.monotonic()
            server.post("/interrupt", {})
            with pytest.raises(PromptError, match="interrupted"):
                server.wait(stopped)
            waited, began = time.monotonic() - began, time.monotonic()
            said = server.run(PROMPT)["outputs"]["p"]["text"][0]
        print(f"\nstopped {waited:.2f} s after the click; {time.monotonic() - began:.0f} s for the rest: {said}")
        assert f"{IMAGES} references" in said and unfinished() == []
        resumed = int(said.splitlines()[1].split("had read ")[1].split()[0])
        assert IMAGES // 2 // 1000 * 1000 - 1 <= resumed < IMAGES, "the first image is always read"
        usual, slowest = median(meanwhile), max(meanwhile)
        print(f"/object_info: {idle:.3f} s before, meanwhile {usual:.3f} s, {slowest:.3f} s of {len(meanwhile)}")
        assert usual < max(0.3, 1.5 * idle) and waited < 3
