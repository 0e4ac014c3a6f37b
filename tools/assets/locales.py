#!/usr/bin/env python3
"""Write `locales/en` from the nodes themselves, and carry the translations over to what the nodes now say.

    .host/python tools/assets/locales.py            write
    .host/python tools/assets/locales.py --check    write nothing, say what is missing or stale, and fail if anything is
    .host/python tools/assets/locales.py --keep     write, and keep translations of changed texts (same meaning)

The host serves `locales/<language>/*.json` at /i18n, and its frontend puts them over what a node says of itself:
an English file that is older than the node would hide the node's words. So nodeDefs.json is never written by
hand in English; main.json (categories) and settings.json are, the same in every language.
A text that was translated keeps its translation wherever it stands. A text that changed has none: its old ones
are taken out of every language, the test names what is missing, and the frontend shows English until then.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from support.paths import ROOT

LOCALES = ROOT / "locales"
PACK = "memorization_guard"
ENGLISH = "en"
TRANSLATED = ("ja", "ko", "zh", "zh-TW")  # the codes of the frontend's own languages
FILES = ("main", "nodeDefs", "settings")

Texts = dict[tuple[str, ...], str]  # path of keys in a file -> text


def normal(name: str) -> str:
    """A node's or input's name as the frontend looks it up: a dot would be a path."""
    return name.replace(".", "_")


def english(schemas: Iterable[Any]) -> dict[str, Any]:
    """nodeDefs.json of these V3 schemas."""

    def slot(name: str, tooltip: str | None) -> dict[str, str]:
        return {"name": name} | ({"tooltip": tooltip} if tooltip else {})

    return {
        normal(schema.node_id): {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {normal(i.id): slot(i.display_name or i.id, i.tooltip) for i in schema.inputs},
            "outputs": {str(n): slot(o.display_name, o.tooltip) for n, o in enumerate(schema.outputs)},
        }
        for schema in schemas
    }


def flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Texts:
    """Every text of a file by its path."""
    found: Texts = {}
    for key, value in tree.items():
        found |= flat(value, (*path, key)) if isinstance(value, Mapping) else {(*path, key): value}
    return found


def nested(texts: Texts) -> dict[str, Any]:
    """The file of these texts: `flat` undone."""
    tree: dict[str, Any] = {}
    for path, text in texts.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = text
    return tree


def carried(before: Texts, translated: Texts, now: Texts) -> Texts:
    """The translations that still hold, in the order of `now`; `before` is the English they were made of."""
    known = {text: translated[path] for path, text in before.items() if path in translated}
    return {path: known[text] for path, text in now.items() if text in known}


def read(language: str, name: str) -> dict[str, Any]:
    file = LOCALES / language / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write(language: str, name: str, tree: Mapping[str, Any]) -> None:
    file = LOCALES / language / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def differences(now: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """What a language lacks, and what it has that English has not."""
    wanted, given = flat(now), flat(tree)
    return [f"missing {'.'.join(p)}" for p in wanted if p not in given] + [
        f"stale {'.'.join(p)}" for p in given if p not in wanted
    ]


def schemas_of_the_pack(base: str) -> list[Any]:
    """The schemas of all nodes, with the host of `.host/python` in the folder `base`, but not started."""
    from comfy.cli_args import args

    args.cpu, args.base_directory = True, base
    importlib.import_module("utils.extra_config")  # as the host's main.py, before its nodes.py
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)
    modules = [importlib.import_module(f".nodes.{name}", PACK) for name in pack.MODULES]
    return [node.GET_SCHEMA() for module in modules for node in module.NODES]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything is missing or stale")
    parser.add_argument("--keep", action="store_true", help="a changed text means the same: keep its translations")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memorization-guard-locales-") as base:
        nodes = english(schemas_of_the_pack(base))
    wrong = []
    for name in FILES:
        before = read(ENGLISH, name)
        now = nodes if name == "nodeDefs" else before
        if before != now:
            wrong.append(f"{ENGLISH}/{name}.json " + ("is not what the nodes say" if asked.check else "is new"))
        if not asked.check:
            write(ENGLISH, name, now)
        for language in TRANSLATED:
            tree = read(language, name)
            if not asked.check:
                tree = nested(carried(flat(now if asked.keep else before), flat(tree), flat(now)))
                write(language, name, tree)
            wrong += [f"{language}/{name}.json: {what}" for what in differences(now, tree)]
    print("\n".join(wrong) or "Every language says what the nodes say.")
    return 1 if wrong and asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
