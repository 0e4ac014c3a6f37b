"""Talking to a running ComfyUI over HTTP and websocket: queue a prompt, watch it, fetch its images."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import aiohttp
import requests

Progress = Callable[[str, dict], None]  # event name, its data
ENDS = ("execution_success", "execution_error", "execution_interrupted")
TEXT, PREVIEW, PREVIEW_WITH_METADATA = 3, 1, 4  # the host's BinaryEventTypes


class PromptError(RuntimeError):
    """The server refused or failed a prompt.

    `kind` is `validation`, `execution` or `interrupted`; `node_id` and `node_type` name the first
    node at fault, when there is one. `details` is what the server sent.
    """

    def __init__(self, kind: str, message: str, node_id: str = "", node_type: str = "", details: object = None):
        where = f" at node {node_id} ({node_type})" if node_id else ""
        super().__init__(f"{kind} error{where}: {message}")
        self.kind, self.message, self.details = kind, message, details
        self.node_id, self.node_type = node_id, node_type


class Client:
    """The calls to one ComfyUI server at `url`."""

    def __init__(self, url: str):
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy of the environment has no say about 127.0.0.1

    def explain(self) -> None:
        """Raise something better than a refused connection, where the reason is known."""

    def call(self, method: str, path: str, **options) -> requests.Response:
        try:
            return self.http.request(method, self.url + path, timeout=120, **options)
        except requests.ConnectionError:
            self.explain()
            raise

    def post(self, path: str, data: dict) -> None:
        self.call("POST", path, json=data).raise_for_status()

    def object_info(self) -> dict:
        """Every node type with its inputs and outputs."""
        answer = self.call("GET", "/object_info")
        answer.raise_for_status()
        return answer.json()

    def queue(self, prompt: dict, client_id: str = "") -> str:
        """Queue an API-format prompt; returns its id. Raises PromptError when any node is refused."""
        answer = self.call("POST", "/prompt", json={"prompt": prompt, "client_id": client_id})
        data = answer.json()
        if answer.ok and not data.get("node_errors"):
            return data["prompt_id"]
        if answer.ok:  # some outputs are valid: the host would run those and be silent about the rest
            self.cancel(data["prompt_id"])
        for node_id, node in (data.get("node_errors") or {}).items():
            texts = [f"{e['message']}: {e['details']}".rstrip(": ") for e in node["errors"]]
            raise PromptError("validation", "; ".join(texts), node_id, node["class_type"], data)
        error = data.get("error", {})  # a node type the host does not know is reported only here
        named = re.search(r"Node ID '#(.+)'", str(error.get("details")))
        node_id = named[1] if named else ""
        node_type = prompt[node_id].get("class_type", "") if node_id in prompt else ""
        raise PromptError("validation", str(error.get("message")), node_id, node_type, data)

    def run(self, prompt: dict, on_progress: Progress | None = None, timeout: float = 600.0) -> dict:
        """Queue a prompt, wait for its end and return its history entry (`outputs` by node id).

        on_progress(event, data), called from this thread, gets the host's websocket events while it
        runs: `progress`, `executing`, `executed`, ..., a pack's own ones, and `progress_text`
        (`node`, `text`) and `preview` (`image`, bytes).
        Raises PromptError, or TimeoutError after `timeout` seconds (the prompt is cancelled then).
        """
        client = uuid.uuid4().hex
        events: queue.SimpleQueue[tuple[str, dict]] = queue.SimpleQueue()
        ended = on_progress is None

        def drain() -> None:
            nonlocal ended
            while on_progress and not events.empty():
                event, data = events.get()
                ended = ended or event in ENDS
                on_progress(event, data)

        with _listener(self.url, client, events) if on_progress else contextlib.nullcontext():
            prompt_id = self.queue(prompt, client)
            end = time.monotonic() + timeout
            entry = None
            try:
                while entry is None:
                    if time.monotonic() > end:
                        raise TimeoutError(f"the prompt did not end in {timeout:.0f} s")
                    time.sleep(0.1)
                    entry = self.call("GET", f"/history/{prompt_id}").json().get(prompt_id)
                    drain()
            except BaseException:
                with contextlib.suppress(requests.RequestException, RuntimeError):
                    self.cancel(prompt_id)
                raise
            grace = time.monotonic() + 2.0  # the last events may still be under way
            while not ended and time.monotonic() < grace:
                time.sleep(0.02)
                drain()
        return checked(entry)

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt out of the queue, or interrupt it when it runs."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def interrupt(self) -> None:
        """Stop the running prompt at its next step."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload the models and empty the node cache, before the next prompt."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def image(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The bytes of a file the host wrote, by the three fields of a node's `ui` output."""
        query = {"filename": filename, "subfolder": subfolder, "type": type}
        answer = self.call("GET", "/view", params=query)
        answer.raise_for_status()
        return answer.content


def checked(entry: dict) -> dict:
    """A history entry, or the PromptError it records."""
    for event, data in (entry.get("status") or {}).get("messages", []):
        if event == "execution_error":
            text = f"{data['exception_type']}: {data['exception_message']}".strip()
            raise PromptError("execution", text, str(data["node_id"]), data["node_type"], data)
        if event == "execution_interrupted":
            node_id, node_type = str(data.get("node_id", "")), data.get("node_type", "")
            raise PromptError("interrupted", "stopped before its end", node_id, node_type, data)
    return entry


@contextlib.contextmanager
def _listener(url: str, client: str, events: queue.SimpleQueue) -> Iterator[None]:
    """Collect a client's websocket events from a thread (Playwright runs a loop in the main one)."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    task = loop.create_task(_listen(f"{url.replace('http', 'ws', 1)}/ws?clientId={client}", events, ready))

    def work() -> None:
        try:
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait(30)
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


async def _listen(url: str, events: queue.SimpleQueue, ready: threading.Event) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        ready.set()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                data = json.loads(message.data)
                events.put((data["type"], data.get("data") or {}))
            elif message.type == aiohttp.WSMsgType.BINARY and (event := _binary(message.data)):
                events.put(event)


def _binary(data: bytes) -> tuple[str, dict] | None:
    """The host's binary messages: a big-endian event number, then that event's layout."""
    (kind,), body = struct.unpack(">I", data[:4]), data[4:]
    if kind == TEXT:
        size = struct.unpack(">I", body[:4])[0]
        return "progress_text", {"node": body[4 : 4 + size].decode(), "text": body[4 + size :].decode()}
    if kind == PREVIEW:
        return "preview", {"image": body[4:]}
    if kind == PREVIEW_WITH_METADATA:
        size = struct.unpack(">I", body[:4])[0]
        return "preview", {**json.loads(body[4 : 4 + size]), "image": body[4 + size :]}
    return None
