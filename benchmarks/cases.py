"""Prompts from a file, in the formats in which memorized prompts are published (docs/protocol.md)."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

MEMORIZED, ORDINARY = "memorized", "ordinary"
VERBATIM, TEMPLATE = "verbatim", "template"
TEXTS = ("caption", "prompt", "text")
FILES = ("file_name", "filename", "file", "image", "image_path", "path")
INDICES = ("index", "id", "key", "prompt_idx")
ADDRESSES = ("url",)
TYPES = ("overfit_type", "type", "memorization_type")
# Webster: matching, retrieved and template verbatims. Hintersdorf et al.: verbatim and template memorization.
KINDS = dict.fromkeys(("mv", "rv", "vm", "verbatim"), VERBATIM) | dict.fromkeys(("tv", "tm", "template"), TEMPLATE)


class BenchmarkError(ValueError):
    """What is wrong with what the user gave, and what to do about it."""


@dataclass(frozen=True)
class Case:
    row: int  # its position in the file, from 0
    text: str
    group: str = MEMORIZED
    kind: str = ""  # VERBATIM, TEMPLATE, or unknown
    files: tuple[str, ...] = ()  # possible names of its training image, surest first
    indices: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def read_cases(file: Path, group: str = MEMORIZED) -> list[Case]:
    """Every prompt of the file, in its order. Raises BenchmarkError if there are none, or no text in a record."""
    cases = [_case(row, record, group, file) for row, record in enumerate(_records(file, text_of(file)))]
    if not cases:
        raise BenchmarkError(f"{file} holds no prompts.")
    return cases


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{file} cannot be read as text: {error}") from None


def _records(file: Path, content: str) -> Iterator[dict[str, Any]]:
    """Each record with its keys in lower case; a bare text has the key `text`."""
    read = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _table, ".tsv": _table}
    lines = lambda _, content: [line.strip() for line in content.splitlines() if line.strip()]  # noqa: E731
    for record in read.get(file.suffix.lower(), lines)(file, content):
        yield {str(k).casefold(): v for k, v in record.items()} if isinstance(record, dict) else {"text": record}


def _json_lines(file: Path, content: str) -> Iterator[Any]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise BenchmarkError(f"{file}, line {number}, is not JSON: {error}") from None


def _json(file: Path, content: str) -> Iterable[Any]:
    try:
        held = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # one object a line, whatever its name says
            return _json_lines(file, content)
        raise BenchmarkError(f"{file} is not JSON: {error}") from None
    if isinstance(held, list):
        return held
    columns = {str(k).casefold(): v for k, v in held.items()} if isinstance(held, dict) else {}
    text = next((columns[t] for t in TEXTS if isinstance(columns.get(t), (dict, list))), None)
    if text is not None:  # columns
        rows = list(text) if isinstance(text, dict) else range(len(text))
        return [{name: column[row] for name, column in columns.items()} for row in rows]
    raise BenchmarkError(f"{file} is neither a list of prompts nor columns with one of {', '.join(TEXTS)}.")


def _table(file: Path, content: str) -> list[dict[str, Any]]:
    for delimiter in ",;\t":
        table = csv.DictReader(io.StringIO(content), delimiter=delimiter)
        names = {str(n).strip().casefold() for n in table.fieldnames or ()}
        if names & set(TEXTS):
            return [{str(k).strip(): v for k, v in record.items() if k is not None} for record in table]
    raise BenchmarkError(f"{file} has no column {', '.join(TEXTS)} in its first line.")


def _case(row: int, record: dict[str, Any], group: str, file: Path) -> Case:
    text = next((record[t] for t in TEXTS if isinstance(record.get(t), str) and record[t].strip()), None)
    if text is None:
        raise BenchmarkError(f"{file}, prompt {row + 1}: no text under {', '.join(TEXTS)}, only {', '.join(record)}.")
    kind = next((KINDS.get(str(record[t]).strip().casefold(), "") for t in TYPES if record.get(t)), "")
    urls = [str(record[a]) for a in ADDRESSES if record.get(a)]
    return Case(
        row,
        text.strip(),
        group,
        kind,
        files=tuple(str(record[f]) for f in FILES if record.get(f)),
        indices=tuple(_plain(record[i]) for i in INDICES if record.get(i) not in (None, "")),
        addresses=tuple(PurePosixPath(unquote(urlsplit(url).path)).stem for url in urls),
    )


def _plain(index: Any) -> str:
    """An index as file names have it: spreadsheets write 12 as 12.0."""
    return str(index).strip().removesuffix(".0")


def same_text(text: str) -> str:
    """A caption for comparison: differences in blanks and case do not count."""
    return " ".join(text.split()).casefold()


def with_kinds(cases: list[Case], others: list[Case]) -> list[Case]:
    """`cases` with the kinds that a second file gives them.

    If that file says the kind of its prompts, they get that kind. If it does not, its prompts are the verbatim ones
    and all others are templates. Prompts are matched by index, or else by text.
    """
    told = any(o.kind for o in others)
    by_index = {i: o for o in others for i in o.indices}
    by_text = {same_text(o.text): o for o in others}

    def kind(case: Case) -> str:
        other = next((by_index[i] for i in case.indices if i in by_index), by_text.get(same_text(case.text)))
        if other is None:
            return case.kind if told else TEMPLATE
        return other.kind if told else VERBATIM

    return [replace(case, kind=kind(case)) for case in cases]


def groups_of(cases: list[Case]) -> dict[str, list[Case]]:
    """Name of a group -> its prompts: all memorized ones, each kind of them where kinds are known, ordinary ones."""
    memorized = [c for c in cases if c.group == MEMORIZED]
    parts = {MEMORIZED: memorized}
    if any(c.kind for c in memorized):
        for kind, name in ((VERBATIM, VERBATIM), (TEMPLATE, TEMPLATE), ("", "of unknown kind")):
            parts[f"{MEMORIZED}, {name}"] = [c for c in memorized if c.kind == kind]
    parts[ORDINARY] = [c for c in cases if c.group == ORDINARY]
    return {name: part for name, part in parts.items() if part}
