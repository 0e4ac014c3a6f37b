"""The host's own executor in this process: prompts in, the real output objects out.

The modules of a pack loaded so are not those that a test imports as `memorization_guard`: see `Host.module`.
"""

import asyncio
import copy
import importlib
import inspect
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from logging.handlers import BufferingHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import comfy.utils
import execution
import server
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

import nodes

Prompt = dict[str, dict[str, Any]]  # node id -> {"class_type": ..., "inputs": {...}}
Outputs = dict[str, list[Any]]  # node id -> one object a slot
CLIENT = "tests"


class NodeError(Exception):
    """A prompt that failed: at which node, with which exception or validation error, saying what."""

    def __init__(self, node_id: str, kind: str, message: str, traceback: str = "") -> None:
        super().__init__(f"node {node_id}: {kind}: {message}")
        self.node_id, self.kind, self.message = node_id, kind, message
        self.traceback = traceback  # the host logs it too


class AnyType(str):
    def __ne__(self, other: object) -> bool:
        return False


ANY = AnyType("*")
GIVEN: dict[str, Any] = {}  # objects of the test, by name


def host_node(name: str, inputs: dict, returns: tuple = (), optional: dict | None = None) -> Callable:
    """Registers a function as a node of the host, which is never cached; without outputs it ends a prompt."""

    def register(run: Callable) -> Callable:
        facts = {
            "INPUT_TYPES": classmethod(lambda cls: {"required": inputs, "optional": optional or {}}),
            "IS_CHANGED": classmethod(lambda cls, **_: float("nan")),
            **{"RETURN_TYPES": returns, "FUNCTION": "run", "OUTPUT_NODE": not returns, "run": staticmethod(run)},
        }
        nodes.NODE_CLASS_MAPPINGS[name] = type(name, (), facts)
        return run

    return register


host_node("MGTest_Sink", {"value": (ANY, {})})(lambda value: {})
host_node("MGTest_Given", {"name": ("STRING", {})}, (ANY,))(lambda name: (GIVEN[name],))


class Host:
    """A ComfyUI without a browser. After a run, `events` and `ui` hold what a browser would have got."""

    def __init__(self, base: Path, packs: Mapping[str, Path]) -> None:
        """Start the host in the folder `base` with these packs (folder name in custom_nodes -> real path)."""
        for name in ("custom_nodes", "input", "output", "temp", "user", "models"):
            (base / name).mkdir(exist_ok=True)
        self.base = base
        self.events: list[tuple[Any, Any]] = []  # (event, data)
        self.ui: dict[str, Any] = {}
        self.complaints: list[str] = []  # what loading the packs logged
        self.loop = asyncio.new_event_loop()
        self.server = server.PromptServer(self.loop)
        comfy.utils.set_progress_bar_global_hook(self._progress)
        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
        for name, path in packs.items():
            self.load_pack(name, path)
        newer = "cache_args" in inspect.signature(execution.PromptExecutor).parameters
        extra = {"cache_args": defaultdict(int)} if newer else {}  # every version asks for more of them
        self.executor = execution.PromptExecutor(self.server, **extra)

    def close(self) -> None:
        comfy.utils.set_progress_bar_global_hook(None)
        self.loop.close()

    def load_pack(self, name: str, path: Path) -> None:
        """Link a pack into custom_nodes and load it as the host does, but let its failure be seen."""
        link = self.base / "custom_nodes" / name
        if not link.exists():
            link.symlink_to(path, target_is_directory=True)
        log = BufferingHandler(capacity=10_000)  # the host logs an exception of the pack, and swallows it
        log.setLevel(logging.WARNING)
        logging.getLogger().addHandler(log)
        try:
            loaded = asyncio.run(nodes.load_custom_node(str(link), module_parent="custom_nodes"))
        finally:
            logging.getLogger().removeHandler(log)
        lines = [record.getMessage() for record in log.buffer]
        self.complaints += lines
        if not loaded:
            raise ImportError(f"The host could not load {name}:\n" + "\n".join(lines))

    def module(self, pack: str, name: str = "") -> ModuleType:
        """The module of a loaded pack that the host runs, as in module("memorization_guard", "nodes.x")."""
        package = str(self.base / "custom_nodes" / pack).replace(".", "_x_")
        return importlib.import_module(f"{package}.{name}" if name else package)

    def run(self, prompt: Prompt, given: Mapping[str, Any] | None = None, keep_cache: bool = False) -> Outputs:
        """Validate and run a prompt in API format; return the outputs of every node, by node id and slot.

        given: objects that nodes may link to as [name, 0]. keep_cache: as in a browser session, nodes whose
        inputs did not change since the last run are not run again; without it everything is.
        Raises NodeError at the first thing the host complains about.
        """
        if not keep_cache:
            self.executor.reset()
        whole = self._complete(prompt, given or {})
        targets = self._validate(whole)
        self.executor.execute(whole, uuid.uuid4().hex, {"client_id": CLIENT}, targets)
        self.loop.run_until_complete(asyncio.sleep(0))  # what other threads sent is in the queue only then
        messages = self.server.messages
        self.events = [messages.get_nowait()[:2] for _ in range(messages.qsize())]
        self.ui = self.executor.history_result["outputs"]
        self._raise_failure()
        return {node: self._outputs(node, whole[node]["class_type"]) for node in prompt}

    def views(self, node: str) -> list[dict[str, Any]]:
        """What the last run showed on a node of the pack, in turn; the last one is what stays."""
        sent = [data for event, data in self.events if event == "memorization_guard.view"]
        return [data["view"] for data in sent if data["node"] == node]

    def _complete(self, prompt: Prompt, given: Mapping[str, Any]) -> Prompt:
        """The prompt with the given objects as nodes, and an end for every node that leads nowhere."""
        GIVEN.clear()
        GIVEN.update(given)
        whole = copy.deepcopy(prompt)
        for name in given:
            whole[name] = {"class_type": "MGTest_Given", "inputs": {"name": name}}
        links = [v for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list)]
        ends = set(prompt) - {link[0] for link in links}
        for node in ends:
            known = nodes.NODE_CLASS_MAPPINGS.get(prompt[node]["class_type"])
            if known is not None and not getattr(known, "OUTPUT_NODE", False):
                whole[f"sink:{node}"] = {"class_type": "MGTest_Sink", "inputs": {"value": [node, 0]}}
        return whole

    def _validate(self, whole: Prompt) -> list[str]:
        valid, error, targets, failed = asyncio.run(execution.validate_prompt(uuid.uuid4().hex, whole, None))
        for node, found in failed.items():
            first = found["errors"][0]
            raise NodeError(node, first["type"], f"{first['message']}: {first['details']}")
        if not valid:
            said = [f"{error['message']} {error['details']}", *self.complaints]
            raise NodeError("", error["type"], "\n".join(said).strip())
        return targets

    def _raise_failure(self) -> None:
        for event, data in self.executor.status_messages:
            if event == "execution_error":
                said, trace = data["exception_message"].strip(), "".join(data["traceback"])
                raise NodeError(data["node_id"], data["exception_type"], said, trace)
            if event == "execution_interrupted":
                raise NodeError(data["node_id"], "interrupted", "the run was interrupted")

    def _outputs(self, node: str, class_type: str) -> list[Any]:
        """One object per slot; a list where the node declares one, or ran once per item of a list."""
        entry = self.executor.caches.outputs.get(node)
        if inspect.isawaitable(entry):  # newer hosts
            entry = self.loop.run_until_complete(entry)
        slots = getattr(entry, "outputs", entry) or []  # 0.3.52 keeps the bare list
        declared = getattr(nodes.NODE_CLASS_MAPPINGS[class_type], "OUTPUT_IS_LIST", None)
        lists = declared or [False] * len(slots)
        return [slot if many or len(slot) != 1 else slot[0] for slot, many in zip(slots, lists, strict=False)]

    def _progress(self, value: float, total: float, preview: Any, node_id: str | None = None) -> None:
        """What the host's main.py hangs into ProgressBar, without the previews."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        context = get_executing_context()
        node = node_id or (context.node_id if context is not None else self.server.last_node_id)
        get_progress_state().update_progress(node, value, total, None)
        self.server.send_sync("progress", {"value": value, "max": total, "node": node}, CLIENT)
