"""A checkpoint's tokenizer: what it is, what its limits are, and what hostile files cannot do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import worker.models.tokenizer as tokenizer
import worker.models.tokens as tokens
from tests.tokenizers import gpt2s, write_tokenizer
from worker.families.gpt2 import GPT2Config as Config
from worker.models.tokens import Gpt2, Ids, TextError, Tokenizer, Vocabulary

CONFIG = Config(vocab_size=1000)
#: Doubles every a.
EXPLODING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.fixture(autouse=True)
def _new_processes() -> Iterator[None]:
    """Forget the tokenizers of other tests, and afterwards those of this one, which ends their processes."""
    forget()
    yield
    forget()


def forget() -> None:
    tokenizer._described.cache_clear()
    tokenizer._process.cache_clear()


def form(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return found


def vocabulary(folder: Path, config: Config = CONFIG) -> Vocabulary:
    return tokens.of_checkpoint(config, folder)


def changed(folder: Path, **fields: Any) -> Vocabulary:
    """Write a byte-level tokenizer with changed fields; return its vocabulary."""
    write_tokenizer(folder, "byte_level")
    (folder / "tokenizer.json").write_text(json.dumps(form(folder) | fields))
    return vocabulary(folder)


def reason(found: Vocabulary) -> str:
    """Return why a vocabulary takes no text, which its problem says, too."""
    assert isinstance(found, Ids)
    with pytest.raises(TextError) as refused:
        found.encode("Hello")
    start, end = "This checkpoint takes no text, because its ", ': send "tokens", a list of ids.'
    text = str(refused.value)
    assert text.startswith(start)
    assert text.endswith(end)
    why = text.removeprefix(start).removesuffix(end)
    assert found.problem == f"Its {why}. The model takes tokens, and no text."
    return why


def processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "worker.models.tokenizer_process" in child.cmdline()]


def test_added_tokens_are_shown_and_special(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    found = vocabulary(tmp_path)
    ids = found.encode("the cat")
    assert found.pieces(ids)[0] == b"<|begin_of_text|>"
    assert b"".join(found.pieces(ids)[1:]) == b"the cat"
    assert [found.is_special(id) for id in ids] == [True] + [False] * (len(ids) - 1)
    assert found.encode("the cat", add_special_tokens=False) == ids[1:]


def test_special_tokens_in_a_text_are_special_and_other_added_tokens_are_not(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    found = vocabulary(tmp_path)
    ids = found.encode("<|end_of_text|><tool>", add_special_tokens=False)
    assert found.pieces(ids) == [b"<|end_of_text|>", b"<tool>"]
    assert [found.is_special(id) for id in ids] == [True, False]


def test_tokens_that_the_configuration_names_are_special_as_in_transformers(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "sentencepiece", pad_token="the", sep_token="nowhere")  # noqa: S106
    found = vocabulary(tmp_path)
    assert isinstance(found, Tokenizer)
    assert found.pieces([form(tmp_path)["model"]["vocab"]["the"]]) == [b"the"]
    assert found.is_special(form(tmp_path)["model"]["vocab"]["the"])


def test_a_piece_of_a_character_is_its_bytes(tmp_path: Path) -> None:
    for kind in ("byte_level", "sentencepiece"):
        write_tokenizer(tmp_path, kind)
        found = vocabulary(tmp_path)
        pieces = found.pieces(found.encode("\U00010348", add_special_tokens=False))
        assert [piece for piece in pieces if piece] == [b"\xf0", b"\x90", b"\x8d", b"\x88"]


def test_a_space_that_the_tokenizer_adds_is_no_part_of_the_first_piece(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "sentencepiece")
    found = vocabulary(tmp_path)
    ids = found.encode("the the")
    assert b"".join(found.pieces(ids)[1:]) == b"the the"
    assert b"".join(map(found.piece, ids[1:])) == b" the the"  # what follows a text


def test_a_random_tokenizer_is_not_random(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    model = form(tmp_path)["model"] | {"dropout": 0.9}
    expected = vocabulary(tmp_path).encode("the cat sat on a mat")
    found = changed(tmp_path, model=model)
    assert [found.encode("the cat sat on a mat") for _ in range(5)] == [expected] * 5


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    before = vocabulary(tmp_path).encode("cat")
    write_tokenizer(tmp_path, "wordpiece")
    assert vocabulary(tmp_path).encode("cat") != before


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokenizer(tmp_path, "byte_level")
    found, [process] = vocabulary(tmp_path), processes()
    assert found.encode("cat") == vocabulary(tmp_path).encode("cat")
    assert processes() == [process]


def test_few_processes_run_at_once_and_end_when_they_are_not_needed(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / str(n)).mkdir()
        write_tokenizer(tmp_path / str(n), "byte_level")
    found = [vocabulary(tmp_path / str(n)) for n in range(5)]
    assert len(processes()) == tokenizer._PROCESSES
    assert len({tuple(one.encode("the cat")) for one in found}) == 1  # those that ended are started again
    tokenizer._process.cache_clear()
    assert processes() == []


def test_a_process_knows_no_secrets_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "secret")
    write_tokenizer(tmp_path, "byte_level")
    assert vocabulary(tmp_path).kind == "tokenizer.json"
    [process] = processes()
    assert "secret" not in process.environ().values()
    assert process.environ()["PYTHONPATH"]


def test_threads_can_share_a_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    texts = [f"the cat {n}" for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: vocabulary(tmp_path).encode(text), texts))
    assert found == [vocabulary(tmp_path).encode(text) for text in texts]


def test_a_request_that_waits_too_long_for_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokenizer(tmp_path, "byte_level")
    source = tokenizer.Source.find(tmp_path)
    assert source is not None
    monkeypatch.setattr(tokenizer, "_SECONDS", 0.01)
    with tokenizer._process(source)._lock, pytest.raises(tokenizer.TokenizerBusyError):
        tokenizer.encode(source, "cat", True)


# -------------------------------------------------------------------------------------------------- sizes


def test_a_padded_vocabulary_takes_text_and_a_smaller_one_does_not(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    size = vocabulary(tmp_path).encode("")[0] + 1  # the beginning of a text comes after what is learned
    for enough in (size, size + 7):
        found = vocabulary(tmp_path, Config(vocab_size=enough))
        assert (found.kind, found.size, found.problem) == ("tokenizer.json", enough, "")
    few = vocabulary(tmp_path, Config(vocab_size=size - 1))
    assert reason(few) == f"tokenizer.json has {size} tokens, and the model has only {size - 1}"


def test_added_tokens_that_no_text_needs_may_lie_beyond_the_vocabulary(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    full = vocabulary(tmp_path)
    size = full.encode("")[0] + 1
    found = vocabulary(tmp_path, Config(vocab_size=size))
    assert found.encode("the cat") == full.encode("the cat")
    assert found.encode("<tool>")[-1] >= size  # which a request is refused for


def test_a_checkpoint_without_a_tokenizer_takes_ids_and_says_so(tmp_path: Path) -> None:
    found = vocabulary(tmp_path)
    assert (found.kind, found.size, found.problem) == ("ids", 1000, "")
    why = r'^This checkpoint has no tokenizer.json: send "tokens", a list of ids.$'
    with pytest.raises(TextError, match=why):
        found.encode("x")
    with pytest.raises(TextError, match=why):
        found.chat([], max_bytes=1)


@pytest.mark.parametrize("size", [50257, 50258, 50304])
def test_a_checkpoint_with_gpt2s_tokenizer_has_gpt2s_tokens_even_if_padded(tmp_path: Path, size: int) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(gpt2s()))
    found = vocabulary(tmp_path, Config(vocab_size=size))
    assert isinstance(found, Gpt2)
    assert (found.kind, found.size, found.encode("Hello world")) == ("gpt2", size, [15496, 995])
    assert [found.piece(id) for id in range(50257, size)] == [b""] * (size - 50257)
    assert reason(vocabulary(tmp_path, Config(vocab_size=50256))).endswith(
        "50,257 tokens, and the model has only 50,256"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"post_processor": {"type": "BertProcessing", "sep": ["a", 64], "cls": ["b", 65]}},
        {"added_tokens": [{"id": 50257, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False,
                           "normalized": False, "special": True}]},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
def test_a_tokenizer_that_differs_from_gpt2s_is_used_as_it_is(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(gpt2s() | fields))
    assert vocabulary(tmp_path, Config(vocab_size=50304)).kind == "tokenizer.json"


# -------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Exception: EOF while parsing"),
        (b"[1]", "Exception: "),
        (b"version https://git-lfs.github.com/spec/v1", "it is a Git LFS pointer"),
        (b'{"model": ' * 500 + b"1" + b"}" * 500, "Exception: recursion limit exceeded"),
        (b"[" * 100_000, "Exception: "),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}}}', "Exception: "),
        (b'{"model": {"type": "Magic"}}', "Exception: "),
        (b"\xff\xfe", "Exception: stream did not contain valid UTF-8"),
    ],
    ids=["empty", "list", "pointer", "nested", "deep", "incomplete", "unknown", "no text"],
)
def test_a_file_that_cannot_be_read_is_a_problem_that_says_why(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    found = reason(vocabulary(tmp_path))
    assert found.startswith("tokenizer.json cannot be used: ")
    assert why in found
    assert len(found) < 600


def test_a_huge_file_is_a_problem(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(100 << 30)
    assert reason(vocabulary(tmp_path)).endswith("it is larger than 67,108,864 bytes")


def test_a_fifo_is_a_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    assert reason(vocabulary(tmp_path)).endswith("tokenizer.json is not a regular file")


def test_a_file_that_needs_too_much_memory_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_BYTES", 100 << 20)
    write_tokenizer(tmp_path, "byte_level")
    model = form(tmp_path)["model"]
    model["vocab"] |= {f"token {n}": len(model["vocab"]) + n for n in range(1_000_000)}
    assert reason(changed(tmp_path, model=model)).endswith("it crashes, or needs more than 100 MB of memory, the limit")


def test_a_large_id_is_a_problem(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    model = form(tmp_path)["model"]
    model["vocab"]["!"] = 2**32 - 1
    found = reason(changed(tmp_path, model=model, added_tokens=[], post_processor=None))
    assert found.endswith("it has the token 4294967295, and ids must be below 10,000,000")


def test_a_panic_is_an_error_and_the_tokenizer_goes_on(tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    found = changed(tmp_path, pre_tokenizer=split)
    with pytest.raises(TextError, match=r"^The text cannot be tokenized: PanicException: .*retry-limit"):
        found.encode("a" * 100 + "b")
    assert found.encode("!", add_special_tokens=False) == [0]


def test_a_text_that_takes_too_long_is_refused_and_the_tokenizer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_SECONDS", 1)
    found = changed(tmp_path, normalizer={"type": "Sequence", "normalizers": [EXPLODING] * 40})
    with pytest.raises(
        TextError, match=r"^The text cannot be tokenized: it (takes more than 1 seconds of processor time|crashes)"
    ):
        found.encode("a")
    assert found.encode("!", add_special_tokens=False) == [0]


def test_a_process_that_is_killed_is_started_again(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    found = vocabulary(tmp_path)
    expected, [process] = found.encode("cat"), processes()
    process.send_signal(signal.SIGKILL)
    with pytest.raises(TextError, match="it crashes"):
        found.encode("cat")
    assert found.encode("cat") == expected


def test_a_tokenizer_outside_the_models_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    write_tokenizer(tmp_path, "byte_level")
    (tmp_path / "models" / "mine" / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    found = reason(vocabulary(tmp_path / "models" / "mine"))
    assert "is a link out of the models folder" in found


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "unigram", "wordpiece"])
@pytest.mark.parametrize("character", [" ", "a", "漢"])
def test_long_runs_of_a_character_have_tokens(tmp_path: Path, kind: str, character: str) -> None:
    library = write_tokenizer(tmp_path, kind)
    library.no_truncation()
    library.no_padding()
    text = character * 100_000 + "b"
    assert vocabulary(tmp_path).encode(text) == library.encode(text).ids


def test_a_process_ends_with_its_service_even_if_that_is_killed(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    code = (
        "import pathlib, sys, time; import worker.models.tokenizer as tokenizer\n"
        "tokenizer.describe(tokenizer.Source.find(pathlib.Path(sys.argv[1])))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        [process] = psutil.Process(service.pid).children()
        service.kill()
    process.wait(timeout=60)


def test_threads_that_end_do_not_end_the_process(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    started: list[Vocabulary] = []
    thread = threading.Thread(target=lambda: started.append(vocabulary(tmp_path)))
    thread.start()
    thread.join()
    [process] = processes()
    assert started[0].encode("cat")
    assert processes() == [process]
