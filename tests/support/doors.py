"""Doors that a pack must not open, seen by an audit hook, and what a run may take: memory, and no file elsewhere."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.spawn"}
CODE = {"exec", "compile", "pickle.find_class", "marshal.loads", "ctypes.dlopen"}
DOORS = NETWORK | PROGRAMS | CODE
WRITES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"}
GIGABYTE = 10**9
OURS = "custom_nodes/memorization_guard/"


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
            if self._opens(event, args):
                self.seen.append(f"{event} {args!r:.200}")
        finally:
            self.on = True

    def _opens(self, event: str, args: tuple) -> bool:
        if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
            return False
        frame, files = sys._getframe(2), []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        if event in ("exec", "compile", "marshal.loads"):  # the very caller: torch compiles, and Python loads codecs
            return OURS in files[0]
        if event in DOORS:  # the innermost code that is not a library's
            return OURS in next((f for f in files if OURS in f or "/comfy" in f or "execution.py" in f), "")
        path = args[0]
        if not isinstance(path, str | bytes | Path) or not any(OURS in file for file in files):
            return False
        return not Path(path.decode() if isinstance(path, bytes) else path).resolve().is_relative_to(self.base)


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
