"""Small tokenizers of the kinds that checkpoints have, and odd strings for them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import worker.models.byte_pairs as byte_pairs

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_TEXT = (
    "the cat sat on a mat and looked at the moon. The year is 2024; print(x[0]) == 'ok' ümlaut café naïve "
    "שלום עולם مرحبا 你好世界 日本語 한국어 🙂👍🏽 हिन्दी don't   spaces\n\tdef f(x):\n    return x + 1"
)
_WORDS = _TEXT.split(" ")
#: Llama 3's pattern.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ALPHABETS = (
    "abc XYZ",
    "0123456789.,",
    " \t\n\r\u00a0\u3000\u200b\u2028",
    "éñüßøΩжЯ",
    "e\u0301a\u0308o\u0302n\u0303\u0338",
    "你好世界日本語漢字かなカナ한국어",
    "שלוםعربيمرحبا\u200f\u202e",
    "🙂👍🏽👩‍👩‍👧‍👦🇺🇳\ufe0f",
    "\x00\x01\x07\x1b\x7f\x85\ufeff\ufffd",
    "(){}[]<>=+-*/\\|&^%$#@!~`'\";:?_",
    "▁Ġ#</w>",
)
_LOOK_ALIKES = (
    "<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|end_of_text|>", "<tool>", "  <mask> ", "[CLS]",
    "[SEP]", "[MASK]", "[UNK]",
    "<0xE2>", "<0x0A>", "▁the", "Ġcat", "##ed", "<S>", "< s >", "<|begin", "don't", " 's", "can 't", " n't .", "    ",
    "\n\n\n", "1234567", "def f(x):\n        return x",
)  # fmt: skip


def odd_strings(count: int = 1000) -> list[str]:
    """Return as many different strings, always the same ones."""
    random_ = random.Random(20)  # noqa: S311
    found = {"": None, " ": None, "Hello world": None, " Hello  world ": None, " " * 300 + "x": None, "a" * 300: None}
    while len(found) < count:
        parts = []
        for _ in range(random_.randint(1, 6)):
            if random_.random() < 0.3:
                parts.append(random_.choice(_LOOK_ALIKES))
            elif random_.random() < 0.5:
                parts.append(random_.choice(_WORDS))
            else:
                parts.append("".join(random_.choices(random_.choice(_ALPHABETS), k=random_.randint(1, 8))))
        found[random_.choice(["", " ", "  "]).join(parts)] = None
    return list(found)


def _trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator([_TEXT] * 20, trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    """Return byte pairs over bytes, as Llama 3's and Qwen's, with tokens that are added and one that is not special."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _trained(tokenizer, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    bos = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing("<|begin_of_text|> $A", None, [bos])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def _byte_fallback(*, prepend: bool) -> Tokenizer:
    """Return byte pairs over characters with ▁ for spaces, and tokens of bytes for other characters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>"]
    _trained(
        tokenizer, trainers.BpeTrainer(vocab_size=300, limit_alphabet=50, special_tokens=special, show_progress=False)
    )
    form = json.loads(tokenizer.to_str())
    learned = [token for token in form["model"]["vocab"] if token not in special]
    tokens = dict.fromkeys([*special, *BYTES, *learned])
    form["model"] |= {"vocab": {token: id for id, token in enumerate(tokens)}, "byte_fallback": True, "fuse_unk": True}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prepend:
        form["pre_tokenizer"] = None
        form["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]}
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    else:
        form["pre_tokenizer"] = {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
        form["normalizer"] = space
    form["decoder"] = {"type": "Sequence", "decoders": steps}
    tokenizer = Tokenizer.from_str(json.dumps(form))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    """Return byte pairs as Llama 2's: with a space before each text."""
    return _byte_fallback(prepend=True)


def spaceless() -> Tokenizer:
    """Return byte pairs as Gemma's: without a space before the text."""
    return _byte_fallback(prepend=False)


def metaspace() -> Tokenizer:
    """Return byte pairs with ▁ from a pre-tokenizer, as of Llama 2 and Mistral in newer files."""
    form = json.loads(sentencepiece().to_str())
    form["normalizer"] = None
    form["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return Tokenizer.from_str(json.dumps(form))


def unigram() -> Tokenizer:
    """Return a unigram model as T5's, which adds an end to each text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        unk_token="<unk>",  # noqa: S106
        special_tokens=special,
        show_progress=False,
    )
    _trained(tokenizer, trainer)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    return tokenizer


def wordpiece() -> Tokenizer:
    """Return word pieces as BERT's, which neither keep case nor accents; the file says to truncate and to pad."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    return tokenizer


def gpt2s() -> dict[str, Any]:
    """Return the content of a tokenizer.json with GPT-2's vocabulary, but no merges."""
    return {
        "model": {"type": "BPE", "vocab": json.loads(byte_pairs.encoder_file()), "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    }


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    made.__name__: made for made in (byte_level, sentencepiece, spaceless, metaspace, unigram, wordpiece)
}
_PLAIN = dict.fromkeys(("rstrip", "single_word", "normalized"), False)
_NAMED: dict[str, dict[str, Any]] = {
    "byte_level": {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True} | _PLAIN,
    },
    "unigram": {"eos_token": "</s>", "unk_token": "<unk>"},
    "wordpiece": {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"},
}


def write_tokenizer(folder: Path, kind: str, **config: Any) -> Tokenizer:
    """Write a tokenizer's files into a folder; `config` has further fields of tokenizer_config.json."""
    tokenizer = KINDS[kind]()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = _NAMED.get(kind, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    fields = {"tokenizer_class": "PreTrainedTokenizerFast"} | named | config
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return tokenizer
