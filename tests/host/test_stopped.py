"""A run that the user stops ends within one image, and one over a folder goes on from there."""

import asyncio
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import comfy.model_management
import pytest
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from support import every_node, graphs
from support.executor import Host
from support.graphs import node
from support.outcomes import fails
from support.paths import PACK

STEPS = {  # what a node does with every image: where, and how often at most before the run has ended
    "read": ("references.image_folder", "read_image", 2),
    "encode": ("references.feature_extraction", "image_features", 3),
    "compare": ("mitigation.references.index", "ReferenceIndex.nearest", 2),
    "draw": ("drawing.copy_comparison", "_bar", 2),
    "save": ("adapter.images", "ui.PreviewImage", 2),
    "find duplicates": ("mitigation.references.duplicates", "connected_components", 2),
}
IMAGES, READ = 60, node("MG_ReferencesFromFolder", folder="stopped", metric="nL2", width=32, height=32)
WRITTEN = "memorization_references/.memorization_guard-*.unfinished"


@pytest.fixture(scope="module", autouse=True)
def folder(host: Host) -> Path:
    made = host.base / "input" / "stopped"
    made.mkdir()
    draw = torch.Generator().manual_seed(1)
    for i, pixels in enumerate(torch.randint(0, 256, (IMAGES, 24, 24, 3), generator=draw, dtype=torch.uint8)):
        Image.fromarray(pixels.numpy()).save(made / f"{i:02}.png")
        (made / f"{i:02}.txt").write_text(f"number {i}")
    return made


@pytest.fixture
def stop(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stops the run, as the page does, at a call of a function that the host runs; counts its calls."""

    def at(module: str, name: str, call: int) -> list[int]:
        calls, holder = [], host.module(PACK, module)
        *owners, last = name.split(".")
        for owner in owners:
            holder = getattr(holder, owner)
        real = getattr(holder, last)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(len(calls))
            if len(calls) == call:
                comfy.model_management.interrupt_current_processing()
            return real(*args, **kwargs)

        monkeypatch.setattr(holder, last, counted)
        return calls

    return at


@pytest.mark.parametrize("step", STEPS)
def test_a_stop_ends_the_run_within_one_image(host: Host, vae: Any, stop: Any, monkeypatch, step: str) -> None:
    monkeypatch.setattr(host.module(PACK, "adapter.images"), "SAVED_AT_ONCE", 1)
    monkeypatch.setattr(host.module(PACK, "mitigation.references.duplicates"), "ROWS", 8)
    # Newer hosts' progress bars do not look whether the run is to end.
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", None)
    draw = torch.Generator().manual_seed(2)
    given = {"i": torch.rand(3, 32, 32, 3, generator=draw)}
    prompt = {"r": READ, "c": graphs.check("r")}
    module, name, most = STEPS[step]
    calls = stop(module, name, 1)
    assert fails(host, prompt, given).kind == "interrupted"
    assert 1 <= len(calls) <= most


def test_a_stopped_folder_goes_on_to_the_same_set(host: Host, folder: Path, stop: Any, monkeypatch) -> None:
    unfinished = host.module(PACK, "references.unfinished")
    monkeypatch.setattr(unfinished, "WORTH", 0)
    monkeypatch.setattr(unfinished, "MOST", 7)
    whole, _, report = host.run({"r": READ})["r"]
    assert "stopped" not in report
    calls = stop("references.image_folder", "read_image", 40)
    assert fails(host, {"r": READ}).kind == "interrupted"
    assert "Stopped after 40 of 60 images" in (said := host.views("r")[-1]["warning"])
    assert "run it again, and it goes on from there" in said
    bars = [(data["value"], data["max"]) for event, data in host.events if event == "progress"]
    assert bars == sorted(bars) and 0 < bars[-1][0] <= 40 and {most for _, most in bars} == {IMAGES}
    kept = sorted((host.base / "models").glob(WRITTEN))
    assert len(kept) == 6 and len(calls) == 40
    kept[1].write_bytes(kept[1].read_bytes()[:-9])  # a damaged file costs its seven images only
    os.utime(folder / "30.png", (1, 1))  # and an image that was written again only itself
    again, _, report = host.run({"r": READ})["r"]
    assert len(calls) == 40 + 20 + 7 + 1 + 1, "the first image is always read"
    assert "The run that was stopped had read 31 images" in report
    assert torch.equal(again.features, whole.features) and torch.equal(again.thumbnails, whole.thumbnails)
    assert (again.names, again.captions) == (whole.names, whole.captions)
    assert not list((host.base / "models").glob(WRITTEN))


def test_other_settings_and_a_full_disk_begin_with_the_first_image(host: Host, stop, monkeypatch, caplog) -> None:
    monkeypatch.setattr(host.module(PACK, "references.unfinished"), "WORTH", 0)
    calls = stop("references.image_folder", "read_image", 40)
    assert fails(host, {"r": READ}).kind == "interrupted"
    other = {"r": {**READ, "inputs": {**READ["inputs"], "width": 48}}}
    assert "stopped" not in host.run(other)["r"][2] and len(calls) == 40 + 60
    assert "had read 39 images" in host.run({"r": READ})["r"][2]
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(host.module(PACK, "references.safe_file"), "save_file", full)
    again = stop("references.image_folder", "read_image", 40)
    assert fails(host, {"r": READ}).kind == "interrupted" and len(again) == 40
    assert "it begins again with the first image" in caplog.text and "No space left" in caplog.text
    assert every_node.run(host, {"r": READ}, {})["r"][1] == IMAGES


def test_a_node_waits_while_the_server_answers_but_never_more_than_it_works(host: Host) -> None:
    work = host.module(PACK, "adapter.long_work")

    def ask(seconds: float) -> threading.Thread:
        def answer() -> None:
            with work.answering():
                asked.set()
                time.sleep(seconds)

        asked, thread = threading.Event(), threading.Thread(target=answer)
        thread.start()
        asked.wait()
        return thread

    def item() -> float:
        began = time.monotonic()
        for _ in work.interruptible([None]):
            return time.monotonic() - began
        raise AssertionError

    assert item() < 0.1, "nobody asked"
    asked = ask(0.4)
    assert 0.3 < item() < 0.6, "the item comes after the answer"
    asked.join()
    asked = ask(0.4)  # somebody who never stops asking
    assert item() < 0.1, "first the node works for as long as it waited"
    asked.join()
    assert item() < 0.1, "nothing is left of it"


def test_every_request_to_the_server_counts_while_it_is_answered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    work, routes = host.module(PACK, "adapter.long_work"), host.module(PACK, "adapter.routes")

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=str(len(work._answering)), status=int(request.query["status"]))

    async def ask() -> list[str]:
        app = web.Application()
        app.router.add_get("/", answer)
        monkeypatch.setattr(routes.PromptServer, "instance", SimpleNamespace(app=app, routes=web.RouteTableDef()))
        routes.serve(Path("memorization_guard"))
        async with TestClient(TestServer(app)) as client:
            return [await (await client.get("/", params={"status": s})).text() for s in ("200", "500", "no number")]

    assert asyncio.run(ask())[:2] == ["1", "1"] and not work._answering
