#!/usr/bin/env python3
"""Start ComfyUI with this pack and the lab model in it, until Ctrl-C: `make serve`."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from support.paths import ROOT
from support.server import Server, ServerError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="All others go to main.py.")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 8188))
    parser.add_argument("--base", type=Path, default=ROOT / ".host" / "serve", help="base directory")
    options, extra = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    try:
        server = Server(options.base, options.port, [a for a in extra if a != "--"])
        print(f"ComfyUI {server.host.name} is starting, log in {server.log} ...", flush=True)
        with server:
            for line in server.import_failures():
                print(f"WARNING: {line}", file=sys.stderr, flush=True)
            print(f"\n    {server.url}\n\nCtrl-C stops it.", flush=True)
            while True:
                time.sleep(0.5)
                server.check_alive()
    except ServerError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped")
        return 0


if __name__ == "__main__":
    sys.exit(main())
