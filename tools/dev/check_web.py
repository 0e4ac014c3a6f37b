#!/usr/bin/env python3
"""Check the types of web/ for `make lint`.

The modules are plain JavaScript, which the browser loads as it is: nothing is built. The TypeScript compiler checks
the types in their JSDoc; npm installs it once into the user's cache. Without node and npm the types are not checked,
which this program says but does not count as a failure: the pack itself needs neither.
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
    """The path of tsc.js, which is installed first if needed. None if npm cannot install it."""
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
        say("SKIPPED: node or npm is missing, so the types of web/ were not checked")
        return 0
    tsc = compiler(npm)
    if tsc is None:
        say("SKIPPED: npm could not install the TypeScript compiler (see above), so the types of web/ were not checked")
        return 0
    done = subprocess.run([node, str(tsc), "--project", str(PROJECT)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    sys.stdout.write(done.stdout)
    say("the type check FAILED" if done.returncode else "types checked")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
