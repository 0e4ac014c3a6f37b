"""A real ComfyUI on a base directory of its own, with this pack and the lab model in it."""

import atexit
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

from support.client import Client
from support.paths import LAB, LAB_CHECKPOINT, LAB_NAME, LAB_PACK, PACK_NAME, ROOT, SMALL_CHECKPOINT, SMALL_LAB

LAB_TRAINING = "lab512 training images"  # folder of the input directory
NOT_COPIED = shutil.ignore_patterns(".git", ".host", "__pycache__", "artefacts")
START = 300  # seconds within which it has to answer
SETTINGS = {"Comfy.TutorialCompleted": True}  # else the Templates dialog covers the canvas


class ServerError(RuntimeError):
    """The server did not start, or died; the message ends with the tail of its log."""


def find_host() -> Path:
    given = os.environ.get("COMFYUI_PATH")
    if not given or not (Path(given) / "main.py").is_file():
        raise ServerError("no ComfyUI: use `.host/python`, which `make setup` makes, or set COMFYUI_PATH to its folder")
    return Path(given).resolve()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def place(source: Path, target: Path) -> None:
    """Link `target` to `source`, or copy it where links are not allowed; an older one is replaced."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target, ignore=NOT_COPIED)
        else:
            shutil.copy2(source, target)


def fill_base(base: Path, host: Path, lab: bool = True, pack: bool = True) -> None:
    """Lay out a base directory: this pack, the lab pack and checkpoints, inputs and user settings."""
    for name in ("custom_nodes", "models/checkpoints", "input", "output", "user/default"):
        (base / name).mkdir(parents=True, exist_ok=True)
    if pack:
        place(ROOT, base / "custom_nodes" / PACK_NAME)
    if (example := host / "input" / "example.png").is_file():
        shutil.copyfile(example, base / "input" / "example.png")  # newer hosts follow no link out of the folder either
    if lab:
        place(LAB_PACK, base / "custom_nodes" / LAB_NAME)
        for file in (LAB_CHECKPOINT, SMALL_CHECKPOINT):
            place(file, base / "models" / "checkpoints" / file.name)
        # Copied: References from Folder follows no link out of the input directory.
        for lab, name in ((LAB, LAB_TRAINING), (SMALL_LAB, "training")):
            shutil.copytree(lab / "training_images", base / "input" / name, dirs_exist_ok=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    old = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    settings.write_text(json.dumps({**old, **SETTINGS}, indent=4), encoding="utf-8")


def die_with_parent() -> Callable[[], None] | None:
    """Linux: what makes a child end even when this process is killed outright."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG


class Server(Client):
    """A running ComfyUI, as a context manager: started on entry, stopped for certain on exit.

    base: the base directory; None makes a temporary one, deleted on exit.
    port: 0 takes a free one. extra: further arguments of the host's `main.py`.
    lab: with the lab pack and its checkpoints. pack: with this pack.
    cpu: False lets the host choose the device.
    Enter it in a thread that lives as long as the server, such as the main one.
    """

    def __init__(
        self,
        base: Path | str | None = None,
        port: int = 0,
        extra: Sequence[str] = (),
        lab: bool = True,
        pack: bool = True,
        cpu: bool = True,
    ):
        self.port = port or free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self.host = find_host()
        self.temporary = base is None
        self.base = Path(tempfile.mkdtemp(prefix="mg-server-") if base is None else base).resolve()
        self.log = self.base / "server.log"
        self.extra = [*(["--cpu"] if cpu else []), *extra]
        self.lab, self.pack = lab, pack
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        atexit.register(self.stop)
        try:
            fill_base(self.base, self.host, self.lab, self.pack)
            self._start()
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise ServerError(f"port {self.port} is taken: set PORT to another one, or to 0 for any")
        command = [
            *(sys.executable, str(self.host / "main.py"), "--disable-auto-launch"),
            *("--listen", "127.0.0.1", "--port", str(self.port), "--base-directory", str(self.base)),
            # By default the database lies in the host's folder, whatever the base directory is.
            *("--database-url", f"sqlite:///{(self.base / 'user' / 'comfyui.db').as_posix()}"),
            *self.extra,
        ]
        # As users start it: nothing of ours on the module path.
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.host,
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us only; we stop the server
                preexec_fn=die_with_parent(),
            )

    def _wait(self) -> None:
        end = time.monotonic() + START
        while time.monotonic() < end:
            self.check_alive()
            with contextlib.suppress(requests.RequestException):
                if self.http.get(f"{self.url}/object_info", timeout=30).ok:
                    return
            time.sleep(0.25)
        raise ServerError(f"no answer at {self.url} after {START} s\n{self.log_tail()}")

    def check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            why = "not started" if self.process is None else f"exit {self.process.returncode}"
            raise ServerError(f"the server at {self.url} is not running ({why})\n{self.log_tail()}")

    def explain(self) -> None:
        time.sleep(0.5)  # a dying process needs a moment to be dead
        self.check_alive()

    def stop(self) -> None:
        """End the server's process, by force after 10 s; a temporary base directory goes with it."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.temporary:
            shutil.rmtree(self.base, ignore_errors=True)
        atexit.unregister(self.stop)

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(["--- the server's log ends with:", *self.log_text().splitlines()[-lines:]])

    def import_failures(self) -> list[str]:
        """The log's lines that tell of custom nodes of this base directory which did not load."""
        marks, folder = (("IMPORT FAILED", "Cannot import", "Error while calling"), str(self.base / "custom_nodes"))
        lines = self.log_text().splitlines()
        return [line for line in lines if folder in line and any(mark in line for mark in marks)]
