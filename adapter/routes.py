"""Serves the pack's pages and templates when its folder has a name that the host cannot serve.

The host offers both under the folder's name, by static routes. aiohttp (seen in 3.14) keeps a route's address
quoted and compares it with a request's unquoted one: with a space or an accent in the name, as in the second
"memorization-guard-main (1)" of a browser's downloads, every file is a 404 and live views, help and templates are gone.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from server import PromptServer

from .folders import inside

PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")  # what quoting does not change
SERVED = {"/extensions": "web", "/workflow_templates": "workflows"}  # the host adds /api itself


def serve(pack: Path) -> None:
    """Answer for the folder `pack` under its name, if the host does not; its own routes go first."""
    server = getattr(PromptServer, "instance", None)
    if server is None or PLAIN.fullmatch(pack.name):
        return
    name = re.sub(r"\\?[{}]", ".", re.escape(pack.name.replace("%", "%25")))  # braces would end the pattern
    for address, folder in SERVED.items():
        server.routes.get(f"{address}/{{pack:{name}}}/{{file:.+}}")(_files(pack / folder))


def _files(root: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        file = root / request.match_info["file"]
        if not inside(file, [root]) or not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)

    return answer
