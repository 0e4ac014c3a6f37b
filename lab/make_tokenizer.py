"""Write the lab tokenizer's files: CLIP's byte-pair format, letters plus the lab's words.

python -m lab.make_tokenizer
"""

from __future__ import annotations

import json
import re

from support.paths import LAB_PACK

from . import scenes

FOLDER = LAB_PACK / "tokenizer"


def letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, as byte-level BPE defines them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def words() -> list[str]:
    text = " ".join([*scenes.SHAPES, *scenes.COLOURS, *scenes.TITLES, "a an the photo of picture on and"])
    return sorted(set(re.findall(r"[a-z]+", text.lower())))


def byte_pairs(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """What the byte-pair encoder makes of a word: merges in the order of their rank."""
    parts = [*word[:-1], word[-1] + "</w>"]
    for left, right in merges:
        i = 0
        while i < len(parts) - 1:
            if (parts[i], parts[i + 1]) == (left, right):
                parts[i : i + 2] = [left + right]
            i += 1
    return parts


def main() -> None:
    merges: list[tuple[str, str]] = []
    for word in words():
        while len(parts := byte_pairs(word, merges)) > 1:
            merges.append((parts[0], parts[1]))
    base = letters()
    vocab = [*base, *(b + "</w>" for b in base)]
    vocab += [left + right for left, right in merges] + ["<|startoftext|>", "<|endoftext|>"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    table = {word: i for i, word in enumerate(dict.fromkeys(vocab))}
    (FOLDER / "vocab.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    (FOLDER / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>"}
    config |= dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    config |= {"do_lower_case": True, "errors": "replace", "model_max_length": 8192}
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main()
