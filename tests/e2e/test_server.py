"""Do our calls tell the truth about a real server?"""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.client import PromptError
from support.graphs import node
from support.paths import ROOT
from support.server import Server, ServerError

IMAGE = node("EmptyImage", width=48, height=32, batch_size=2, color=255)
TO_NOTHING = node("ImageScaleBy", image=["3", 0], upscale_method="bilinear", scale_by=0.01)
PROMPT = {"1": IMAGE, "2": node("SaveImage", images=["1", 0], filename_prefix="e2e")}
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize(
    ("prompt", "kind", "node_id", "node_type", "text"),
    [
        ({"7": node("NoSuchNode")}, "validation", "7", "NoSuchNode", "does not exist|not found"),
        ({**PROMPT, "3": node("PreviewImage")}, "validation", "3", "PreviewImage", "missing: images"),
        ({"1": IMAGE}, "validation", "", "", "no outputs"),
        ({**PROMPT, "1": TO_NOTHING, "3": IMAGE}, "execution", "1", "ImageScaleBy", "execution error at node 1"),
    ],
    ids=["unknown node", "one of two outputs is wrong", "no output", "fails when it runs"],
)
def test_an_error_names_its_node(server: Server, prompt, kind: str, node_id: str, node_type: str, text: str) -> None:
    with pytest.raises(PromptError, match=text) as caught:
        server.run(prompt)
    error = caught.value
    assert (error.kind, error.node_id, error.node_type) == (kind, node_id, node_type)


def test_a_dying_server_says_why() -> None:
    with pytest.raises(ServerError, match="unrecognized arguments: --nonsense"):
        Server(extra=["--nonsense"]).__enter__()


def test_a_taken_port_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerError, match="is taken"):
            Server(port=taken.getsockname()[1]).__enter__()


def _hears_ctrl_c() -> None:
    """A shell's background jobs, and all that they start, are deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals as on Linux")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_make_serve_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "tools" / "dev" / "serve.py"), "--port", "0", "--base", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=_hears_ctrl_c) as process:
        try:
            assert process.stdout
            address = next(line.strip() for line in process.stdout if "http://" in line)
            process.send_signal(how)
            assert process.wait(30) == (0 if how == signal.SIGINT else -how)
        finally:
            process.kill()
    port = int(address.rsplit(":", 1)[1])
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    pytest.fail(f"the server at {address} is still there")
