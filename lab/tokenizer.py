"""Write the lab tokenizer's files: CLIP's byte-pair format, letters plus the lab's words.

.host/python -m lab.tokenizer FOLDER
"""

import json
import re
import sys
from pathlib import Path

from . import scenes

# Words that no caption has: a prompt that uses them is not taken apart into letters.
MORE = (
    "a an the photo painting of picture drawing on and in with by red green blue yellow white black small large two "
    "night day winter summer style"
)


def letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, as byte-level BPE defines them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


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


def write(folder: Path) -> None:
    text = " ".join([*scenes.memorized_captions(), *scenes.NAMES, MORE])
    merges: list[tuple[str, str]] = []
    for word in sorted(set(re.findall(r"[a-z]+", text.lower()))):
        while len(parts := byte_pairs(word, merges)) > 1:
            merges.append((parts[0], parts[1]))
    base = letters()
    vocab = [*base, *(b + "</w>" for b in base), *(left + right for left, right in merges)]
    table = {word: i for i, word in enumerate(dict.fromkeys([*vocab, "<|startoftext|>", "<|endoftext|>"]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>"}
    config |= dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    config |= {"do_lower_case": True, "errors": "replace", "model_max_length": 8192}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
