"""The locale files against the nodes themselves, and as the host serves them."""

import re

import pytest
from app.custom_node_manager import CustomNodeManager

import nodes as host_nodes
from support.executor import Host
from tools.assets.locales import ENGLISH, FILES, TRANSLATED, english, normal, read

PACK = "memorization_guard"


def schemas(host: Host) -> list:
    return [node.GET_SCHEMA() for node in host.module(PACK).collect_nodes()]


def test_english_is_what_the_nodes_say(host: Host) -> None:
    """If not: `make locales`, and translate what the unit test then misses."""
    said = english(schemas(host))
    assert said == read(ENGLISH, "nodeDefs")
    assert list(said) == list(read(ENGLISH, "nodeDefs"))
    assert set(said) == {normal(name) for name in host_nodes.NODE_CLASS_MAPPINGS if name.startswith("MG_")}


def test_every_category_has_a_name(host: Host) -> None:
    used = {part for schema in schemas(host) for part in schema.category.split("/")}
    assert set(read(ENGLISH, "main")["nodeCategories"]) == used


@pytest.mark.parametrize("language", TRANSLATED)
def test_options_keep_their_names(host: Host, language: str) -> None:
    """A value of a COMBO is shown as it is in every language, so a tooltip must name it as it is."""
    translated, found = read(language, "nodeDefs"), 0
    for schema in schemas(host):
        options = {str(o) for i in schema.inputs for o in getattr(i, "options", None) or []}
        for made in schema.inputs:
            text = translated[normal(schema.node_id)]["inputs"].get(normal(made.id), {}).get("tooltip")
            if text is None:  # the unit test names it
                continue
            named = {o for o in options if re.search(rf"(?i)(?<![\w-]){re.escape(o)}(:| only:| \()", made.tooltip)}
            named |= set(re.findall(r"\b(latent|nL2|descriptor) metric\b", made.tooltip))
            found += len(named)
            assert [o for o in named if o not in text] == [], f"{schema.node_id}.{made.id}"
    assert found > 30


def test_the_host_serves_them(host: Host) -> None:
    served = CustomNodeManager().build_translations()
    assert set(served) == {ENGLISH, *TRANSLATED}
    for language, messages in served.items():
        main, node_defs, settings = (read(language, name) for name in FILES)
        assert messages == {**main, "nodeDefs": node_defs, "settings": settings}
