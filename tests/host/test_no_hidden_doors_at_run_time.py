"""While nodes run, our code opens no connection, starts no program, runs no code, and writes only where it may."""

from pathlib import Path
from typing import Any

import pytest

from support import every_node
from support.doors import Watch
from support.every_node import EVERY_NODE, SET
from support.executor import Host


@pytest.fixture(scope="module")
def watch(host: Host) -> Watch:
    return Watch(host.base)


def test_running_nodes_open_no_door(host: Host, vae: Any, watch: Watch) -> None:
    given = every_node.prepare(host, vae)
    saved = host.base / "models" / "memorization_references" / f"{SET}.safetensors"
    before = saved.stat().st_mtime_ns
    with watch.watching():
        for prompt in EVERY_NODE.values():
            every_node.run(host, prompt, given)
    assert saved.stat().st_mtime_ns > before, "a file was written where it may be"
    assert watch.seen == []


def test_a_door_is_seen(host: Host, watch: Watch, tmp_path: Path) -> None:
    """Put into a module of ours, each is reported."""
    module = host.module("memorization_guard", "drawing.node_views")
    doors = ["open(path, 'w').close()", "exec('1')", "marshal.loads(marshal.dumps(1))", "subprocess.run(['true'])"]
    source = "import marshal, subprocess\ndef go(path):\n" + "".join(f"    {door}\n" for door in doors)
    scope: dict[str, Any] = {}
    exec(compile(source, module.__file__, "exec"), scope)  # noqa: S102 - in the test's own words
    with watch.watching():
        scope["go"](str(tmp_path / "elsewhere"))
    said = " ".join(watch.seen)
    for door in ("open", "exec", "marshal.loads", "subprocess.Popen"):
        assert door in said
