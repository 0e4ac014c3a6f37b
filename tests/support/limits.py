"""What a run may take: memory above what the process had, and no file outside the folders."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIGABYTE = 10**9


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
