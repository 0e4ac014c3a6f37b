"""Serve the pack's pages and templates when its folder has a name that the host cannot serve, and never stale ones.

The host tells browsers to ask again for .js and .css files only. A browser keeps our .mjs modules and help pages as
long as it likes, and after an update a new page would meet old modules ("does not provide an export").

The host uses static routes under the folder's name. aiohttp (seen in 3.14) compares the quoted address of a route with
the unquoted one of a request: with a space in the name, as in "memorization-guard-main (1)", every file is a 404.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from server import PromptServer

from .folders import inside
from .long_work import answering

UNQUOTED = re.compile(r"[A-Za-z0-9_.~-]+")  # names that quoting does not change
SERVED = {"/extensions": "web", "/workflow_templates": "workflows"}  # the host adds /api itself


def serve(pack: Path) -> None:
    """Keep browsers from using old files of the folder `pack`, and serve it under its name if the host cannot."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    if app := getattr(server, "app", None):
        app.on_response_prepare.append(_ask_again(pack.name))
        app.middlewares.append(_note)
    if UNQUOTED.fullmatch(pack.name):
        return
    name = re.sub(r"\\?[{}]", ".", re.escape(pack.name.replace("%", "%25")))  # braces would end the pattern
    for address, folder in SERVED.items():
        server.routes.get(f"{address}/{{pack:{name}}}/{{file:.+}}")(_files(pack / folder))


@web.middleware
async def _note(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A node that works for long waits meanwhile (long_work.py)."""
    with answering():
        return await handler(request)


def _ask_again(pack: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def prepare(request: web.Request, response: web.StreamResponse) -> None:
        if f"/extensions/{pack}/" in request.path:
            response.headers["Cache-Control"] = "no-cache"  # a file that has not changed costs one empty answer

    return prepare


def _files(root: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        file = root / request.match_info["file"]
        if not inside(file, [root]) or not file.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(file)

    return answer
