"""What may go on around a run on a server: memory and disk that run out, files replaced, models unloaded."""

import contextlib
import os
import random
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from support.server import Server

SETS, DISK = "models/memorization_references", "full"  # the folder in SETS on which a small disk is mounted
LOADED = "soak.safetensors"
NOTHING = b"{}"


@contextlib.contextmanager
def little_memory(server: Server, draw: random.Random) -> Iterator[None]:
    process, unlimited = psutil.Process(server.process.pid), (resource.RLIM_INFINITY,) * 2
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + (draw.randrange(1, 64) << 20), unlimited[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_AS, unlimited)


@contextlib.contextmanager
def full_disk(server: Server, draw: random.Random) -> Iterator[None]:
    clear(server)
    disk = server.base / SETS / DISK
    (disk / "filler").write_bytes(bytes(room := os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - (8 << 10)))
    assert room > 0
    try:
        yield
        assert not list(disk.glob(".*")) and not list(disk.glob("*.safetensors")), "half a file was left"
    finally:
        (disk / "filler").unlink()


@contextlib.contextmanager
def replaced_file(server: Server, draw: random.Random) -> Iterator[None]:
    """Another program writes the saved set again and again, in its place: half of it, something else, all of it."""
    file, done = server.base / SETS / LOADED, threading.Event()
    whole = file.read_bytes()

    def write() -> None:
        while not done.is_set():
            file.write_bytes(draw.choice((whole, whole, whole[: len(whole) // 2], NOTHING, b"")))
            time.sleep(draw.random() / 20)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        done.set()
        writer.join()
        file.write_bytes(whole)


@contextlib.contextmanager
def freed(server: Server, draw: random.Random) -> Iterator[None]:
    server.free()
    press = threading.Timer(draw.random() / 2, Server.free, [server])
    press.start()
    yield
    press.join()


AROUND: dict[str, tuple[Callable, str]] = {  # and words of the error that it may cause
    "little memory": (little_memory, "memory|create a primitive"),
    "full disk": (full_disk, "No space left"),
    "replaced file": (replaced_file, "cannot be used"),
    "freed": (freed, "nothing"),
}


@contextlib.contextmanager
def small_disk(server: Server) -> Iterator[bool]:
    """Mount a disk of 64 MB among the saved sets; False where that is not allowed."""
    place = server.base / SETS / DISK
    place.mkdir(parents=True, exist_ok=True)
    mounted = not subprocess.call(["mount", "-ttmpfs", "-osize=64m", "mg", str(place)], stderr=subprocess.DEVNULL)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.check_call(["umount", str(place)])


def clear(server: Server) -> None:
    for file in Path(server.base / SETS / DISK).glob("*.safetensors"):
        file.unlink()
