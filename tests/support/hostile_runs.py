"""Hostile values for the inputs of every node, how a run with them must end, and doors that must stay closed."""

import ctypes
import os
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import nodes as host_nodes
from support.every_node import EVERY_NODE
from support.executor import NodeError, Prompt

FUZZ, SUITE = int(os.environ.get("FUZZ", "0")), 200
ENDLESS = {"dpm_adaptive"}  # the host's never ends on NaN or very large numbers
COSTLY = {"steps": 4, "max_iterations": 3, "adjustments": 3, "candidates": 4, "width": 200, "height": 200}
TEXTS = ["", " ", "\n\n", "x" * 5000, "\x00", "\ud800", "𝕌", "<img src=x onerror=alert(1)>", "(((a:1e999", "a\nb\nc"]
LEAVING = ["..", "../..", "../../etc/passwd", "/etc/passwd", "/", "a/../..", "a/../../b", "~", "$HOME", "%TEMP%"]
WINDOWS = ["C:\\Windows\\win.ini", "c:/x", "\\\\server\\share\\x", "//server/share/x", "\\\\?\\C:\\x", "..\\..\\x"]
WINDOWS += ["a\\..\\..\\b", "CON", "nul.safetensors", "a:b", " lead", "trail. ", "*", "a|b"]
LINKS = ["outside", "outside/x", "loop", "loop/x", "escape.safetensors"]  # test_hostile_inputs.py makes them
NAMES = ["", ".", "./", "a\x00b", "\x00", "\ud800", "a\nb", "…", "-rf", ".hidden", "a/.hidden/b", "﷽" * 100]
LONG = ["x" * 251, "x" * 5000, "d/" * 3000 + "x", "a/" * 40 + "x"]
ADDRESSES = ["file:///etc/passwd", "http://localhost/x", "every node.safetensors/x"]
PATHS = [*LEAVING, *WINDOWS, *LINKS, *NAMES, *LONG, *ADDRESSES]
ODD_NUMBERS = [float("nan"), float("inf"), -1, 2**64, 10**400, -(10**30), 1e308]
ODD = st.sampled_from([None, True, False, "", "x", "7", "nan", *ODD_NUMBERS])
OBJECTS = {"a list": [], "a dict": {}, "a tensor": torch.zeros(2), "an object": object(), "bytes": b"\x00"}
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
COMFY = Path(comfy.__path__[0]).resolve().parent


@dataclass(frozen=True, repr=False)
class Linked:
    """A value that comes over a link: the host checks neither its range nor its type."""

    what: str
    value: Any

    def __repr__(self) -> str:
        return f"Linked({self.what})"


OBJECT = st.sampled_from(sorted(OBJECTS)).map(lambda name: Linked(name, OBJECTS[name]))


@dataclass
class Tally:
    count: Counter = field(default_factory=Counter)  # outcome -> inputs
    wrong: dict[str, str] = field(default_factory=dict)  # where -> the first input that went wrong there, and how

    def line(self) -> str:
        outcomes = ", ".join(f"{n} {what}" for what, n in self.count.most_common())
        return f"{sum(self.count.values())} hostile inputs: {outcomes}"


def _number(spec: dict[str, Any], name: str, whole: bool) -> st.SearchStrategy:
    low, high = spec["min"], spec["max"]
    top = min(high, COSTLY.get(name, high))
    inside = st.integers(low, top) if whole else st.floats(low, top)
    if name == "denoise":  # the host counts steps / denoise steps, and never ends near 0
        inside = st.floats(0.1, high)
    edges = [low, low - 1, high + 1, low * 2 - 1, high * 2 + 1, *([] if name in COSTLY else [high])]
    return st.one_of(inside, inside, st.sampled_from(edges), ODD)


def values(name: str, spec: tuple) -> st.SearchStrategy | None:
    """A literal that a prompt can carry, or the same over a link; None for a socket."""
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    choices = kind if isinstance(kind, list) else options.get("options")
    if name in ("name", "file", "folder"):
        plain = st.one_of(st.sampled_from(PATHS), st.text(max_size=30), ODD)
    elif choices is not None:
        plain = st.one_of(st.sampled_from([*(c for c in choices if c not in ENDLESS), "magic", ""]), ODD)
    elif kind in ("INT", "FLOAT"):
        plain = _number(options, name, kind == "INT")
    elif kind == "STRING":
        plain = st.one_of(st.sampled_from(TEXTS), st.text(max_size=60), ODD)
    elif kind == "BOOLEAN":
        plain = st.one_of(st.booleans(), ODD)
    else:
        return None
    linked = plain.map(lambda value: Linked(repr(value)[:60], value))
    return st.one_of(plain, plain, linked, linked, OBJECT)


@st.composite
def inputs(draw: Callable, class_type: str) -> dict[str, Any]:
    info = host_nodes.NODE_CLASS_MAPPINGS[class_type].INPUT_TYPES()
    specs = {**info.get("required", {}), **info.get("optional", {})}
    drawn = {name: strategy for name, spec in specs.items() if (strategy := values(name, spec)) is not None}
    if not drawn:
        return {}
    changed = draw(st.lists(st.sampled_from(sorted(drawn)), min_size=1, max_size=3, unique=True))
    return {name: draw(drawn[name]) for name in changed}


def prompt_of(class_type: str, changed: dict[str, Any]) -> tuple[Prompt, dict[str, Any]]:
    given = {f"given_{name}": v.value for name, v in changed.items() if isinstance(v, Linked)}
    put = {name: [f"given_{name}", 0] if isinstance(v, Linked) else v for name, v in changed.items()}
    prompt = EVERY_NODE[class_type]
    return {**prompt, "n": {"class_type": class_type, "inputs": {**prompt["n"]["inputs"], **put}}}, given


def _who(trace: str) -> str:
    """Whose code raised it: the innermost frame that is neither Python's nor a library's."""
    for file, line, function in reversed(FRAME.findall(trace)):
        if "/custom_nodes/memorization_guard/" in file:
            return f"our {'/'.join(Path(file).parts[-2:])}:{line} {function}"
        if Path(file).is_relative_to(COMFY) or "/tests/" in file or "memorization_guard_lab" in file:
            return f"the host's or another pack's {Path(file).name}:{line} {function}"
    return "nobody"


def judge(run: Callable[[], Any], prompt: Prompt, tally: Tally, changed: Any = None) -> None:
    """Run it, and note anything but a result or one clear sentence as wrong."""
    ours = [n["class_type"] for n in prompt.values() if n["class_type"].startswith("MG_")]
    names = {host_nodes.NODE_DISPLAY_NAME_MAPPINGS[name] for name in ours} | {"Deferred CFG", "Noise Optimizer"}
    who, wrong = "", ""
    try:
        run()
        tally.count["ran"] += 1
    except NodeError as error:
        if not error.traceback:
            tally.count["refused by the host's validation"] += 1
            if error.kind == "exception_during_validation":
                wrong = f"while the host validated: {error}"
        elif error.kind.endswith("GuardError"):
            tally.count["refused by us in one sentence"] += 1
            if not any(error.message.startswith(f"{name}: ") for name in names):
                wrong = f"names no node: {error}"
            if not 20 < len(error.message) < 900 or "Traceback" in error.message:
                wrong = f"not one sentence: {error}"
        else:
            who = _who(error.traceback)
            tally.count["failed in the host's or another pack's code"] += 1
            if who.startswith("our "):
                wrong = f"{who}: {error}"
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        wrong = "autograd was left in another state"
    if wrong:
        tally.wrong.setdefault(who or wrong[:60], f"{wrong:.600}\n    with {changed!s:.300}")


def plan(share: float) -> settings:
    """The suite's few, the same at every run, or a share of `make fuzz`."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=max(1, round(share * (FUZZ or SUITE))),
        derandomize=not FUZZ,
        deadline=None,
        database=None,
        suppress_health_check=unhealthy,
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if FUZZ else [])),
        print_blob=True,
        report_multiple_bugs=False,
    )


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
