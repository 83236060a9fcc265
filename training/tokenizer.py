"""Knows how the vocabulary is learned and written: byte-level BPE of the Qwen2 kind, NFC, `<|endoftext|>` as separator.

It must not know teacher, student or losses.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import corpus
from sources import CACHE
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY = 12_288
WORDS = 11_000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FOLDER = CACHE / "tokenizer"
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _texts() -> Iterator[str]:
    """Words rather than running text: the widespread ones, counts damped, so that merges end in whole words.

    A word counts once for each source and document; capitals and text-initial forms are kept for the commonest only.
    """
    spread: Counter[str] = Counter()
    for document in corpus.load():
        text = " ".join([document.title, *document.chunks]).lower()
        spread.update(set(re.findall(r"[a-z]+", text)))
    widespread = sorted(spread.items(), key=lambda item: (-item[1], item[0]))[:WORDS]
    ranked = [word for word, _ in widespread if len(word) > 1]
    for rank, word in enumerate(ranked):
        times = max(2, int(spread[word] ** 0.5))
        forms = [f" {word}"] * times
        if rank < WORDS // 8:
            forms += [f" {word.capitalize()}"] * (times // 2) + [word, word.capitalize()] * (times // 4)
        yield from forms
    yield from (chr(33 + i) * 2 for i in range(15))


def train() -> None:
    """Learns the merges and writes the three tokenizer files in the published layout."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    FOLDER.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(FOLDER / "tokenizer.json"), pretty=False)
    separator = SPECIAL[0]
    names = {"eos_token": separator, "pad_token": separator, "sep_token": separator}
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL
    }
    config = {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        **names,
        "errors": "replace",
        "model_max_length": 32768,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "added_tokens_decoder": added,
    }
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (FOLDER / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")


def load(folder: Path = FOLDER) -> Tokenizer:
    """The trained tokenizer; it adds nothing and reads special tokens as plain text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer
