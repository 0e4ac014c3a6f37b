#!/usr/bin/env python3
"""Write web/node_facts.mjs: what the page has to know about the nodes, and the host does not tell it."""

import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from support.paths import ROOT

UsedWith = Mapping[str, Mapping[str, Sequence[str]]]  # choice -> its values -> inputs
ReplacedBy = Mapping[str, Sequence[str]]  # connected input -> inputs
FILE = ROOT / "web" / "node_facts.mjs"
TEXT = """\
// Written by tools/assets/node_facts.py. Do not edit: change nodes/schema.py and run that program again.
// @ts-check

/** The nodes that show a view. */
export const VIEWED = new Set([
{viewed},
]);

/** Choice -> each of its values -> the inputs that it uses. @type {{Record<string, Record<string, string[]>>}} */
export const USED_WITH = {{
{used}}};

/** Connected input -> the inputs that it replaces. @type {{Record<string, string[]>}} */
export const REPLACED_BY = {replaced};
"""


def page_facts(nodes: Sequence[Any], used_with: UsedWith, replaced_by: ReplacedBy) -> str:
    """The text of web/node_facts.mjs. A node shows a view if its code makes a LiveView."""
    viewed = [node.GET_SCHEMA().node_id for node in nodes if "LiveView(" in inspect.getsource(node)]
    return TEXT.format(
        viewed=textwrap.fill(json.dumps(viewed)[1:-1], 120, initial_indent="  ", subsequent_indent="  "),
        used="".join(choice_lines(name, inputs_of) for name, inputs_of in used_with.items()),
        replaced=json.dumps(replaced_by),
    )


def choice_lines(name: str, inputs_of: Mapping[str, Sequence[str]]) -> str:
    values = [f"{json.dumps(value)}: {json.dumps(inputs)}" for value, inputs in inputs_of.items()]
    line = f"  {name}: {{ {', '.join(values)} }},\n"
    if len(line) <= 120:
        return line
    return f"  {name}: {{\n" + "".join(f"    {value},\n" for value in values) + "  },\n"


def main() -> None:
    from support import bootstrap  # noqa: F401 - first: it prepares the host and makes the pack importable

    # isort: split
    import memorization_guard
    from memorization_guard.nodes.schema import REPLACED_BY, USED_WITH

    text = page_facts(memorization_guard.collect_nodes(), USED_WITH, REPLACED_BY)
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
