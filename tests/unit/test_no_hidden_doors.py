"""What runs on a user's machine neither runs code from data, nor starts programs, nor reaches for the network.

Read from the sources; tests/host/test_hostile_files.py watches the running nodes.
"""

import ast
from pathlib import Path

import pytest

from support.paths import ROOT, SOURCES

UNPICKLE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PROGRAMS = {"subprocess", "multiprocessing", "pty", "code", "codeop", "runpy", "pip", "ensurepip", "ctypes", "cffi"}
CLIENTS = {"urllib", "http", "requests", "httpx", "aiohttp", "websocket", "websockets", "huggingface_hub", "webbrowser"}
PROTOCOLS = {"socket", "ssl", "ftplib", "smtplib", "telnetlib"}
MODULES = UNPICKLE | PROGRAMS | CLIENTS | PROTOCOLS
NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}
ALLOWED = {
    ("adapter/routes.py", "aiohttp"),  # adds a route to the host's own server, and asks no other
    ("mitigation/references/torch_archive.py", "pickle"),  # with an allow list, see tests/unit/test_torch_archive.py
}
STARTS = {"system", "popen", "spawnl", "spawnv", "execv", "execve", "fork", "startfile"}
ATTRIBUTES = STARTS | {"unsafe_load", "load_module", "load_state_dict_from_url", "download_url_to_file", "hub"}
IMPORTS = ["import pickle", "from subprocess import run", "import urllib.request", "import ctypes.util"]
CALLS = ["eval('1')", "os.system('x')", "f = exec", "__import__('os')", "torch.hub.load('x')"]
LOADS = ["torch.load('x')", "torch.load('x', weights_only=False)", "torch.jit.load('x')", "np.load('x')"]
NONE = ["torch.load('x', weights_only=True)", "model.eval()", "re.compile('x')", "json.loads('1')"]


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def doors(tree: ast.AST, where: str) -> list[str]:
    found = []
    for node in ast.walk(tree):
        said = ""
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if (where, a.name) not in ALLOWED]
            said = ", ".join(name for name in names if name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            known = node.module.split(".")[0]
            said = node.module if known in MODULES and (where, known) not in ALLOWED else ""
        elif isinstance(node, ast.Name):
            said = node.id if node.id in NAMES else ""
        elif isinstance(node, ast.Attribute):
            said = dotted(node) if node.attr in ATTRIBUTES else ""
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "loads")
        ):
            called = dotted(node.func)
            only_weights = any(k.arg == "weights_only" and getattr(k.value, "value", 0) is True for k in node.keywords)
            numpy = called in ("np.load", "numpy.load")
            torch = called.startswith("torch.") and not only_weights
            said = called if torch or numpy else ""
        if said:
            found.append(f"{node.lineno}: {said}")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_door(source: Path) -> None:
    assert doors(ast.parse(source.read_text(encoding="utf-8")), source.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize("line", [*IMPORTS, *CALLS, *LOADS, *NONE])
def test_a_door_is_seen(line: str) -> None:
    assert bool(doors(ast.parse(line), "nodes/somewhere.py")) == (line not in NONE)
