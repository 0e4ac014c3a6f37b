"""Prompts that were written for the executor in this process, on a server, and each model's first run thrown away."""

import time
from collections.abc import Mapping
from typing import Any

import requests
import torch

from support.client import PromptError
from support.executor import NodeError, Outputs, Prompt
from support.families.kinds import Family, Precision
from support.graphs import node
from support.server import Server, ServerError

AT_SERVER = ("m", "exact", "mem", "null", "latent", "clip", "vae", "exact vae", "descriptor")


class Lost(Exception):
    """The server died, or its device did: nothing that runs there any more says anything about a node."""


class RemoteHost:
    def __init__(self, server: Server) -> None:
        self.server, self.ui, self.number = server, {}, 0
        self.outputs = {name: len(kind["output"]) for name, kind in server.object_info().items()}
        self.written: dict[str, Any] = {}

    def load(self, family: Family, precision: Precision) -> dict[str, Any]:
        """Let the server load a family's model; the names that a prompt may link to."""
        (self.server.base / f"{self.number}.safetensors").unlink(missing_ok=True)  # never overwrite: it may be mapped
        self.number += 1
        file = f"{self.number}.safetensors"
        family.write(self.server.base / file, precision)
        self._queue({"load": node("MGCheck_Load", family=family.name, precision=precision.name, file=file)})
        return dict.fromkeys(AT_SERVER)

    def weights(self) -> str:
        return self._queue({"weights": node("MGCheck_Weights")})["weights"]["told"][0]

    def run(self, prompt: Prompt, given: Mapping[str, Any]) -> Outputs:
        """The outputs of the nodes that lead nowhere. Raises NodeError."""
        whole = {**prompt, **{name: node("MGTest_Given", name=name) for name in given}}
        for name, value in given.items():
            if value is not None and self.written.get(name) is not value:
                torch.save(value, self.server.base / f"{name}.given")
                self.written[name] = value
        led = {value[0] for one in prompt.values() for value in one["inputs"].values() if isinstance(value, list)}
        ends = [name for name in prompt if name not in led]
        for name in ends:
            slots = {f"slot{i}": [name, i] for i in range(self.outputs[prompt[name]["class_type"]])}
            whole[f"save {name}"] = node("MGCheck_Save", name=name, **slots)
        loads = self._loads()
        self.ui = self._queue(whole)
        if self._loads() != loads:  # on a GPU the first run after a load differs from all later ones
            self.ui = self._queue(whole)
        return {name: torch.load(self.server.base / f"{name}.saved", weights_only=False) for name in ends}

    def views(self, name: str) -> list[dict[str, Any]]:
        return self.ui.get(name, {}).get("memorization_guard", [])

    def _loads(self) -> int:
        return self.server.log_text().count("Requested to load")

    def _queue(self, prompt: Prompt) -> dict[str, Any]:
        try:
            entry = self.server.wait(self.server.queue(prompt), pause=lambda: time.sleep(0.005))
        except PromptError as error:
            kind, _, said = error.message.partition(": ")
            if "CUDA error" in said:
                raise Lost(f"{said.splitlines()[0]} at {error.node_type}") from error
            raise NodeError(error.node_id, kind, said) from None
        except (ServerError, requests.RequestException) as error:
            raise Lost(str(error)) from error
        return entry["outputs"]
