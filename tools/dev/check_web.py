#!/usr/bin/env python3
"""Check the types of web/ with the TypeScript compiler; `make lint` does.

The modules are plain JavaScript with types in JSDoc, and the browser loads them as they are. npm installs the compiler
once into the user's cache. Without node and npm this says that nothing was checked and succeeds, because the pack does
not require them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools.dev.provision import CACHE, ROOT

VERSION = "5.9.3"
PROJECT = ROOT / "tests" / "web" / "tsconfig.json"


def say(text: str) -> None:
    print(f"[web] {text}", flush=True)


def compiler(npm: str) -> Path | None:
    """tsc.js, installed if it is missing; None if npm cannot install it."""
    home = CACHE / f"typescript-{VERSION}"
    tsc = home / "node_modules" / "typescript" / "lib" / "tsc.js"
    if tsc.is_file():
        return tsc
    home.mkdir(parents=True, exist_ok=True)
    quiet = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(
        [npm, "install", "--prefix", str(home), *quiet, f"typescript@{VERSION}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode or not tsc.is_file():
        shutil.rmtree(home, ignore_errors=True)
        say(done.stdout.strip()[-2000:])
        return None
    return tsc


def main() -> int:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        say("SKIPPED: the types of web/ were not checked, because node or npm is missing")
        return 0
    tsc = compiler(npm)
    if tsc is None:
        say("SKIPPED: the types of web/ were not checked, because npm could not install TypeScript (see above)")
        return 0
    done = subprocess.run([node, str(tsc), "--project", str(PROJECT)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    sys.stdout.write(done.stdout)
    say("the type check FAILED" if done.returncode else "types checked")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
