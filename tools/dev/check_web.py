#!/usr/bin/env python3
"""Check the types of web/ with the TypeScript compiler; `make lint` does.

The modules are plain JavaScript with types in JSDoc, as the browser loads them: nothing is built. The compiler is
installed once into the user's cache by npm. Without node and npm this says that nothing was checked, and succeeds:
they are no requirement of the pack.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from provision import CACHE, ROOT

VERSION = "5.9.3"
PROJECT = ROOT / "tests" / "web" / "tsconfig.json"


def say(text: str) -> None:
    print(f"[web] {text}", flush=True)


def compiler(npm: str) -> Path | None:
    """tsc.js, installed when it is not there yet; None when npm cannot get it."""
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
        say("SKIPPED: types of web/ not checked, there is no node or no npm here")
        return 0
    tsc = compiler(npm)
    if tsc is None:
        say("SKIPPED: types of web/ not checked, npm could not install the TypeScript compiler (see above)")
        return 0
    done = subprocess.run([node, str(tsc), "--project", str(PROJECT)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    sys.stdout.write(done.stdout)
    say("types FAILED" if done.returncode else "types checked")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
