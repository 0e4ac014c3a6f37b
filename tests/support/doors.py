"""Doors that a pack must not open, seen by an audit hook, and what a run may take: memory, and no file elsewhere."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.spawn"}
CODE = {"exec", "compile", "pickle.find_class", "marshal.loads", "ctypes.dlopen"}
DOORS = NETWORK | PROGRAMS | CODE
WRITES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}
GIGABYTE = 10**9


class Watch:
    """What happened while `on`; an audit hook cannot be taken off again."""

    def __init__(self, base: Path) -> None:
        self.base, self.on, self.seen = base.resolve(), False, []
        sys.addaudithook(self)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def __call__(self, event: str, args: tuple) -> None:
        if not self.on or event not in DOORS | WRITES | {"open"}:
            return
        self.on = False  # what is done here is not watched
        try:
            if event in DOORS:
                if self._directly(event in ("exec", "compile", "marshal.loads")):
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
        """Ours is the innermost code that is not a library's.

        `itself`: it is the very caller, since torch compiles its own code and Python loads its codecs.
        """
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


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def memory(peaks: list[int], most: int = GIGABYTE) -> Iterator[None]:
    """Add to `peaks` how much memory the block took at once; twice `most` is out of memory, as a second net."""
    ctypes.CDLL(None).malloc_trim(0)  # what malloc has kept would hide what a run takes
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark begins anew
    before, (soft, hard) = _status("VmRSS"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 2 * most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        peaks.append(_status("VmHWM") - before)


def files(base: Path, but: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder, without those whose path begins with one of `but`."""
    found = {}
    for path in base.rglob("*"):
        name = path.relative_to(base).as_posix()
        if not name.startswith(but) and path.is_file() and not path.is_symlink() and "__pycache__" not in name:
            found[name] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found
