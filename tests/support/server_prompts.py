"""Prompts in the API's format for a real server. What a prompt leaves out comes from the server's node schemas."""

from __future__ import annotations

from typing import Any

from support.client import Client

Prompt = dict[str, dict[str, Any]]
CLIP, VAE = ["checkpoint", 1], ["checkpoint", 2]
WIRES: dict[str, Any] = {
    "model": ["checkpoint", 0],
    "positive": ["positive", 0],
    "negative": ["negative", 0],
    "latent_image": ["latent", 0],
}


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def start(text: str, size: int, batch: int, checkpoint: str = "lab.safetensors") -> Prompt:
    """The nodes that `WIRES`, `CLIP` and `VAE` lead to."""
    return {
        "checkpoint": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "positive": node("CLIPTextEncode", clip=CLIP, text=text),
        "negative": node("CLIPTextEncode", clip=CLIP, text=""),
        "latent": node("EmptyLatentImage", width=size, height=size, batch_size=batch),
    }


def with_defaults(server: Client, prompt: Prompt) -> Prompt:
    """The prompt with every required input that it leaves out at its default, as the frontend would send it."""
    return {
        name: {**given, "inputs": {**_defaults(server, given["class_type"]), **given["inputs"]}}
        for name, given in prompt.items()
    }


def _defaults(server: Client, class_type: str) -> dict[str, Any]:
    found = {}
    info = server.get(f"/object_info/{class_type}").json()
    for name, (kind, *options) in info[class_type]["input"].get("required", {}).items():
        facts = options[0] if options else {}
        choices = kind if isinstance(kind, list) else facts.get("options")
        if "default" in facts or choices:
            found[name] = facts["default"] if "default" in facts else choices[0]
    return found
