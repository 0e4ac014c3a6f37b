"""What runs on a user's machine neither runs code from data, nor starts programs, nor reaches for the network.

Ruff reads it from the sources; tests/host/test_hostile_files.py watches the running nodes.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import SOURCES

UNPICKLE = "pickle cPickle dill cloudpickle joblib shelve marshal torch.load torch.jit.load torch.hub numpy.load"
PROGRAMS = "subprocess multiprocessing pty code codeop runpy pip ensurepip ctypes cffi os.system os.popen os.spawnl"
PROGRAMS += " os.spawnv os.execv os.execve os.fork os.startfile"
NETWORK = "urllib http requests httpx aiohttp websocket websockets huggingface_hub webbrowser socket ssl ftplib smtplib"
BANNED = f"{UNPICKLE} {PROGRAMS} {NETWORK} telnetlib yaml.unsafe_load".split()
API = "lint.flake8-tidy-imports.banned-api"
NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}
ALLOWED = [
    ("adapter/routes.py", "aiohttp"),  # adds a route to the host's own server, and asks no other
    ("mitigation/references/torch_archive.py", "pickle"),  # with an allow list, see tests/unit/test_torch_archive.py
]
IMPORTS = ["import pickle", "from subprocess import run", "import urllib.request", "import ctypes.util"]
CALLS = ["eval('1')", "import os; os.system('x')", "f = exec", "__import__('os')", "import torch; torch.hub.load('x')"]
LOADS = ["import torch; torch.load('x')", "import torch; torch.jit.load('x')", "import numpy as np; np.load('x')"]
NONE = ["import torch; torch.nn.Module().eval()", "import re; re.compile('x')", "import json; json.loads('1')"]


def doors(*files: Path) -> list[str]:
    each = ", ".join(f'"{name}" = {{msg = ""}}' for name in BANNED)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--output-format=concise"]
    run = subprocess.run(
        [*ruff, "--select=TID251", "--config", f"{API} = {{{each}}}", *files], capture_output=True, text=True
    )
    assert run.returncode in (0, 1), run.stderr
    found = [line for line in run.stdout.splitlines() if "TID251" in line]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    named = [(f, n) for f, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in NAMES]
    found += [f"{file}:{name.lineno}: {name.id}" for file, name in named]
    return [line for line in found if not any(file in line and f"`{name}`" in line for file, name in ALLOWED)]


def test_no_door() -> None:
    assert doors(*SOURCES) == []


@pytest.mark.parametrize("line", [*IMPORTS, *CALLS, *LOADS, *NONE])
def test_a_door_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.py").write_text(line, encoding="utf-8")
    assert bool(doors(tmp_path / "a.py")) == (line not in NONE)
