"""Write `locales/en` from the nodes themselves, and keep the translations of what the nodes still say.

.host/python tools/assets/locales.py

A translated text keeps its translation wherever it moves; a changed text loses its translations in every language.
main.json (categories, commands) and settings.json are written by hand.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from support.paths import PACK, ROOT

LOCALES = ROOT / "locales"
ENGLISH = "en"
TRANSLATED = ("ja", "ko", "zh", "zh-TW")  # the codes of the frontend's own languages
FILES = ("main", "nodeDefs", "settings")

Texts = dict[tuple[str, ...], str]  # path of keys in a file -> text


def normal(name: str) -> str:
    """A node's or input's name as the frontend looks it up, where a dot would be a path."""
    return name.replace(".", "_")


def english(schemas: Iterable[Any]) -> dict[str, Any]:
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
    found: Texts = {}
    for key, value in tree.items():
        found |= flat(value, (*path, key)) if isinstance(value, Mapping) else {(*path, key): value}
    return found


def nested(texts: Texts) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, text in texts.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = text
    return tree


def carried(before: Texts, translated: Texts, now: Texts) -> Texts:
    """The translations that still hold, in the order of `now`; `before` is the English they were made from."""
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
    """What a language lacks, and what it has but English does not."""
    wanted, given = flat(now), flat(tree)
    return [f"missing {'.'.join(p)}" for p in wanted if p not in given] + [
        f"stale {'.'.join(p)}" for p in given if p not in wanted
    ]


def schemas_of_the_pack() -> list[Any]:
    """The schemas of all nodes, in the host of `.host/python`, which is not started."""
    from support import bootstrap  # noqa: F401 - prepares the host in a folder of its own, and imports the pack

    modules = [importlib.import_module(f".nodes.{name}", PACK) for name in sys.modules[PACK].MODULES]
    return [node.GET_SCHEMA() for module in modules for node in module.NODES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep translations of changed texts: same meaning")
    keep = parser.parse_args().keep
    nodes, wrong = english(schemas_of_the_pack()), []
    for name in FILES:
        before = read(ENGLISH, name)
        now = nodes if name == "nodeDefs" else before
        if before != now:
            wrong.append(f"{ENGLISH}/{name}.json was rewritten")
        write(ENGLISH, name, now)
        for language in TRANSLATED:
            tree = nested(carried(flat(now if keep else before), flat(read(language, name)), flat(now)))
            write(language, name, tree)
            wrong += [f"{language}/{name}.json: {what}" for what in differences(now, tree)]
    print("\n".join(wrong) or "Every language matches the nodes.")


if __name__ == "__main__":
    main()
