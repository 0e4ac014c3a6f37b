"""Talk to a running ComfyUI over HTTP: queue a prompt, wait for its end, fetch its images."""

import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

import requests


class PromptError(RuntimeError):
    """The server refused or failed a prompt.

    `kind` is `validation`, `execution` or `interrupted`; `node_id` and `node_type` name the first node at fault.
    """

    def __init__(self, kind: str, message: str, node_id: str = "", node_type: str = ""):
        where = f" at node {node_id} ({node_type})" if node_id else ""
        super().__init__(f"{kind} error{where}: {message}")
        self.kind, self.message = kind, message
        self.node_id, self.node_type = node_id, node_type


class Client:
    def __init__(self, url: str):
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False  # a proxy set in the environment cannot reach 127.0.0.1

    def explain(self) -> None:
        """Raise an error that says why the connection was refused, where the reason is known."""

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        try:
            return self.http.request(method, self.url + path, timeout=120, **options)
        except requests.ConnectionError:
            self.explain()
            raise

    def get(self, path: str, **options: Any) -> requests.Response:
        answer = self.call("GET", path, **options)
        answer.raise_for_status()
        return answer

    def post(self, path: str, data: dict) -> None:
        self.call("POST", path, json=data).raise_for_status()

    def object_info(self) -> dict:
        return self.get("/object_info").json()

    def queue(self, prompt: dict) -> str:
        """Queue an API-format prompt and return its id. Raises PromptError if the server refuses any node."""
        answer = self.call("POST", "/prompt", json={"prompt": prompt}).json()
        try:
            return accepted(answer, prompt)
        except PromptError:
            if "prompt_id" in answer:  # the server would run the valid outputs and not mention the others
                self.cancel(answer["prompt_id"])
            raise

    def wait(self, prompt_id: str, timeout: float = 600.0, pause: Callable[[], object] | None = None) -> dict:
        """Wait for a prompt to end; return its history entry (`outputs` by node id).

        pause: what to do between two looks, instead of sleeping.
        Raises PromptError, or TimeoutError after `timeout` seconds. A prompt that nobody waits for is cancelled.
        """
        end = time.monotonic() + timeout
        try:
            while (entry := self.get(f"/history/{prompt_id}").json().get(prompt_id)) is None:
                if time.monotonic() > end:
                    raise TimeoutError(f"the prompt did not end in {timeout:.0f} s")
                pause() if pause else time.sleep(0.05)
        except BaseException:
            with contextlib.suppress(requests.RequestException, RuntimeError):
                self.cancel(prompt_id)
            raise
        return checked(entry)

    def run(self, prompt: dict, timeout: float = 600.0) -> dict:
        return self.wait(self.queue(prompt), timeout)

    def cancel(self, prompt_id: str) -> None:
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def free(self) -> None:
        """Ask the host to unload the models and to empty the node cache: it may do so only after the next prompt."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def emptied(self) -> None:
        """Unload the models and empty the node cache before the next prompt: after a prompt, the host looks first."""
        self.free()
        image = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
        self.run({"1": image, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})

    def image(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The bytes of a file that the server wrote, by the three fields of a node's `ui` output."""
        return self.get("/view", params={"filename": filename, "subfolder": subfolder, "type": type}).content


def accepted(answer: dict, prompt: dict) -> str:
    """The prompt's id in an answer to POST /prompt, or the PromptError that it tells of."""
    for node_id, node in (answer.get("node_errors") or {}).items():
        texts = [f"{e['message']}: {e['details']}".rstrip(": ") for e in node["errors"]]
        raise PromptError("validation", "; ".join(texts), node_id, node["class_type"])
    if "error" in answer:
        error = answer["error"]
        named = re.search(r"Node ID '#(.+)'", str(error.get("details")))  # a node type that the server does not know
        node_id = named[1] if named else ""
        raise PromptError("validation", error["message"], node_id, prompt.get(node_id, {}).get("class_type", ""))
    return answer["prompt_id"]


def checked(entry: dict) -> dict:
    for event, data in (entry.get("status") or {}).get("messages", []):
        if event == "execution_error":
            text = f"{data['exception_type']}: {data['exception_message']}".strip()
            raise PromptError("execution", text, str(data["node_id"]), data["node_type"])
        if event == "execution_interrupted":
            node_id, node_type = str(data.get("node_id", "")), data.get("node_type", "")
            raise PromptError("interrupted", "stopped before its end", node_id, node_type)
    return entry
