"""A folder of very many images on a real server: progress, a stop, going on from there, and a page that still loads."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import pytest
from PIL import Image

from support import graphs
from support.graphs import node
from support.server import Server

IMAGES = int(os.environ.get("LARGE_FOLDER", "3000"))
FORMATS, A_FOLDER, SIDE = (".png", ".jpg", ".webp"), 1000, 24
ME = "large folder"
pytestmark = pytest.mark.timeout(300 + IMAGES // 20)


def fill(folder: Path) -> None:
    draw = random.Random(1)
    for i in range(IMAGES):
        inner = folder / f"{i // A_FOLDER:03}"
        inner.mkdir(parents=True, exist_ok=True)
        small = Image.frombytes("RGB", (4, 4), draw.randbytes(48))
        small.resize((SIDE, SIDE)).save(inner / f"{i:06}{FORMATS[i % 3]}")


class Watched:
    def __init__(self, server: Server, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.server, self.http, self.socket = server, http, socket
        self.pages: list[float] = []  # seconds that each /object_info took

    async def page(self) -> None:
        while True:
            began = time.monotonic()
            async with self.http.get(f"{self.server.url}/object_info") as answer:
                await answer.read()
            self.pages.append(time.monotonic() - began)
            await asyncio.sleep(0.5)

    async def run(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        prompt = {
            "r": node("MG_ReferencesFromFolder", folder="very many", metric="nL2", width=64, height=64),
            "s": graphs.keep("r", "very many"),
            "p": node("PreviewAny", source=["r", 2]),
        }
        body = {"prompt": prompt, "client_id": ME}
        async with self.http.post(f"{self.server.url}/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
        async for message in self.socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                event = message.json()
                yield event["type"], event["data"]
                if event["type"] in ("execution_success", "execution_interrupted", "execution_error"):
                    return


def unfinished(server: Server) -> list[Path]:
    return list((server.base / "models" / "memorization_references").glob(".memorization_guard-*"))


async def build(server: Server) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{server.url}/ws?clientId={ME}", max_msg_size=0) as ws:
        watched = Watched(server, http, ws)
        pages = asyncio.create_task(watched.page())
        await asyncio.sleep(5)
        idle, watched.pages = median(watched.pages), []
        seen, stopped, said = [], 0.0, ""
        async for kind, data in watched.run():
            if kind == "progress":
                seen.append(data["value"])
                assert data["max"] == IMAGES
                if seen[-1] > IMAGES // 2 and not stopped:
                    stopped = time.monotonic()
                    await http.post(f"{server.url}/interrupt")
            elif kind == "memorization_guard.view":
                said = data["view"]["warning"]
        waited = time.monotonic() - stopped
        assert kind == "execution_interrupted" and seen == sorted(seen) and len(seen) > 2
        assert unfinished(server) and "run it again, and it goes on from there" in said
        print(f"\nstopped {waited:.2f} s after the click: {said}")
        began = time.monotonic()
        async for kind, data in watched.run():
            if kind == "executed" and data["node"] == "p":
                said = data["output"]["text"][0]
        pages.cancel()
        assert kind == "execution_success" and f"{IMAGES} references" in said
        print(f"{time.monotonic() - began:.0f} s for the rest: {said.splitlines()[1]}")
        resumed = int(said.splitlines()[1].split("had read ")[1].split()[0])
        least = IMAGES // 2 // 1000 * 1000 - 1  # a file for each thousand; the first image is always read
        assert least <= resumed < IMAGES and unfinished(server) == []
        slowest, usual = max(watched.pages), median(watched.pages)
        print(f"/object_info: {idle:.3f} s before, meanwhile {usual:.3f} s, {slowest:.3f} s of {len(watched.pages)}")
        assert usual < max(0.3, 1.5 * idle) and waited < 3


def test_a_stopped_run_goes_on_and_the_page_loads_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with Server() as server:
        fill(server.base / "input" / "very many")
        asyncio.run(build(server))
