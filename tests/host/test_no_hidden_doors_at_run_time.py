"""While nodes run, our code opens no connection, starts no program, runs no code, and writes only where it may."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support.executor import Host
from support.graphs import amg, deferred, detector, ksampler, lab, optimizer, references
from support.lab_pack import exact

DOORS = {
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "pty.spawn",
    "exec",
    "compile",
    "pickle.find_class",
    "marshal.loads",
    "ctypes.dlopen",
    "urllib.Request",
    "webbrowser.open",
}
WRITES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}


class Watch:
    """What happened while `on`; an audit hook cannot be taken off again."""

    def __init__(self, base: Path) -> None:
        self.base, self.on, self.seen = base.resolve(), False, []

    def __call__(self, event: str, args: tuple) -> None:
        if not self.on or event not in DOORS | WRITES | {"open"}:
            return
        self.on = False  # what is done here is not watched
        try:
            if event in DOORS:
                if self._directly(event in ("exec", "compile")):
                    self.seen.append(f"{event} {args!r:.200}")
                return
            if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
                return
            path = args[0]
            if isinstance(path, str | bytes | Path) and self._ours() and not self._allowed(path):
                self.seen.append(f"{event} {args!r:.200}")
        finally:
            self.on = True

    def _frames(self) -> Iterator[str]:
        frame = sys._getframe(3)
        while frame is not None:
            yield frame.f_code.co_filename
            frame = frame.f_back

    def _ours(self) -> bool:
        return any("custom_nodes/memorization_guard/" in name for name in self._frames())

    def _directly(self, itself: bool) -> bool:
        """Ours is the innermost code that is not a library's; `itself`: the very caller (torch compiles its own)."""
        for name in self._frames():
            if itself and "custom_nodes/memorization_guard/" not in name:
                return False
            if "custom_nodes/memorization_guard/" in name:
                return True
            if "/comfy" in name or "execution.py" in name:
                return False
        return False

    def _allowed(self, path: Any) -> bool:
        return Path(path.decode() if isinstance(path, bytes) else path).resolve().is_relative_to(self.base)


@pytest.fixture(scope="module")
def watch(host: Host) -> Watch:
    made = Watch(host.base)
    sys.addaudithook(made)
    return made


def every_node(host: Host) -> tuple[dict, dict]:
    folder = host.base / "input" / "watched"
    folder.mkdir(parents=True, exist_ok=True)
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(folder / "one.png")
    pictures = ["pictures", 0]
    prompt = {
        "lab": lab(2),
        "refs": references("a ring"),
        "g": amg(),
        "k": ksampler(model=["g", 0], steps=3),
        "o": optimizer(max_iterations=2),
        "d": detector(steps=3),
        "s": deferred(noise=["o", 0], curve=["d", 3], steps=3),
        "plot": {"class_type": "MG_PlotCurve", "inputs": {"curve": ["d", 3]}},
        "calibrate": {
            "class_type": "MG_Calibrate",
            "inputs": {
                "model": ["lab", 0],
                "clip": ["clip", 0],
                "latent_image": ["lab", 4],
                "prompts": "memorized",
                "noise_seed": 0,
            },
        },
        "save": {
            "class_type": "MG_SaveReferences",
            "inputs": {"references": ["folder", 0], "name": "watched/set", "overwrite": True},
        },
        "folder": {
            "class_type": "MG_ReferencesFromFolder",
            "inputs": {
                "folder": "watched",
                "metric": "latent",
                "width": 64,
                "height": 64,
                "subfolders": True,
                "vae": ["vae", 0],
            },
        },
        "images": {
            "class_type": "MG_ReferencesFromImages",
            "inputs": {"images": pictures, "captions": "", "metric": "latent", "vae": ["vae", 0]},
        },
        "check": {
            "class_type": "MG_CopyCheck",
            "inputs": {
                "images": pictures,
                "references": ["images", 0],
                "threshold": 0.5,
                "latent_threshold": 0.5,
                "nl2_threshold": 1.4,
                "vae": ["vae", 0],
            },
        },
    }
    given = {"works": {"samples": exact.x_mem()}, "clip": exact.TextEncoder(), "pictures": torch.rand(2, 64, 64, 3)}
    return prompt, given


def test_running_nodes_open_no_door(host: Host, checkpoint, watch: Watch) -> None:
    prompt, given = every_node(host)
    given["vae"] = checkpoint["vae"]
    watch.seen.clear()
    watch.on = True
    try:
        host.run(prompt, given)
        host.run({"l": {"class_type": "MG_LoadReferences", "inputs": {"file": "watched/set.safetensors"}}})
    finally:
        watch.on = False
    assert (host.base / "models" / "memorization_references" / "watched" / "set.safetensors").is_file()
    assert watch.seen == []


def test_a_door_is_seen(host: Host, watch: Watch, tmp_path: Path) -> None:
    """Put into a module of ours, each is reported."""
    module = host.module("memorization_guard", "drawing.node_views")
    source = (
        "import subprocess\ndef go(path):\n    open(path, 'w').close()\n    exec('1')\n    subprocess.run(['true'])\n"
    )
    scope: dict[str, Any] = {}
    exec(compile(source, module.__file__, "exec"), scope)  # noqa: S102 - in the test's own words
    watch.seen.clear()
    watch.on = True
    try:
        scope["go"](str(tmp_path / "elsewhere"))
    finally:
        watch.on = False
    said = " ".join(watch.seen)
    assert "open" in said and "exec" in said and "subprocess.Popen" in said
