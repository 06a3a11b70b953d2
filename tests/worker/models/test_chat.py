"""Chat templates: rendered as by transformers, and bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import worker.models.tokenizer as tokenizer
import worker.models.tokens as tokens
from tests.tokenizers import gpt2s, write_tokenizer
from worker.families.gpt2 import GPT2Config as Config
from worker.models.tokens import TextError, Vocabulary

HI = [{"role": "user", "content": "Hi"}]

#: Templates in the styles of published models, each with the tokenizer that it is for.
TEMPLATES = {
    "Llama 3": (
        "byte_level",
        """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|im_start|>system\\n\\nToday Date: " + date_string + "\\n\\n" + system_message + "<|im_end|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
    {{- '<|im_start|>' + message['role'] + '\\n\\n' + message['content'] | trim + '<|im_end|>' }}
    {%- elif tools is not none %}
    {{- message | tojson(indent=2) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n\\n' }}
{%- endif %}
""",
    ),
    "ChatML": (
        "byte_level",
        """{% for message in messages %}
    {% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}
    {%- endif %}
    {% if message['role'] == 'assistant' %}
        {% generation %}
{{- '<|im_start|>assistant\n' + message['content'] + '<|im_end|>' + '\n' }}
        {%- endgeneration %}
    {% else %}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}
    {%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- endif %}""",
    ),
    "Mistral": (
        "sentencepiece",
        """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("After the optional system message, roles must alternate user/assistant/user/...") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
""",
    ),
    "Gemma": (
        "spaceless",
        """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}\
{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + \
'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}""",
    ),
    "with every helper": (
        "wordpiece",
        """{{ strftime_now('%Y') }}{{ messages | tojson }}{{ {'ä': [1, none]} | tojson(ensure_ascii=True, indent=1) }}
{% for n in range(9) %}
  {% if n == 2 %}{% continue %}{% endif %}
  {% if n == 5 %}{% break %}{% endif %}
  {{ n }}
{% endfor %}
{{ dict(a=1) }}{{ cls_token }}{{ documents is none }}{{ unk_token }}""",
    ),
}  # fmt: skip

CONVERSATIONS: dict[str, list[dict[str, str]]] = {
    "one question": [{"role": "user", "content": "The cat?"}],
    "several turns": [
        {"role": "user", "content": " Hello 🙂 "},
        {"role": "assistant", "content": "the moon\n"},
        {"role": "user", "content": "<|im_end|></s> {{ bos_token }} {% if %} 漢字"},
    ],
    "a system message": [{"role": "system", "content": "sat on a mat"}, {"role": "user", "content": ""}],
    "two questions": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
}


@pytest.fixture(autouse=True)
def _new_processes() -> Iterator[None]:
    yield
    tokenizer._described.cache_clear()
    tokenizer._process.cache_clear()


def vocabulary(folder: Path) -> Vocabulary:
    return tokens.of_checkpoint(Config(vocab_size=1000), folder)


def chat(folder: Path, template: Any, messages: list[dict[str, str]] = HI, max_bytes: int = 10_000) -> str:
    """Return the prompt that a template in tokenizer_config.json makes of messages."""
    write_tokenizer(folder, "byte_level", chat_template=template)
    return text(vocabulary(folder), messages, max_bytes)


def text(found: Vocabulary, messages: list[dict[str, str]] = HI, max_bytes: int = 10_000) -> str:
    return b"".join(found.pieces(found.chat(messages, max_bytes=max_bytes))).decode()


@pytest.mark.parametrize(("kind", "template"), TEMPLATES.values(), ids=TEMPLATES)
def test_prompts_are_those_of_transformers(tmp_path: Path, kind: str, template: str) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed: make peer")
    write_tokenizer(tmp_path, kind, chat_template=template)
    theirs, found = transformers.AutoTokenizer.from_pretrained(tmp_path), vocabulary(tmp_path)
    rendered = 0
    for messages in CONVERSATIONS.values():
        try:
            expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except Exception as error:
            with pytest.raises(TextError, match=f"refuses them: {re.escape(str(error))}"):
                found.chat(messages, max_bytes=10_000)
            continue
        assert found.chat(messages, max_bytes=10_000) == expected
        with_special = theirs(theirs.decode(expected))["input_ids"] if kind == "byte_level" else None
        if with_special is not None:
            assert found.chat(messages, add_special_tokens=True, max_bytes=10_000) == with_special
        rendered += 1
    assert rendered >= 2


def test_a_prompt_ends_where_the_reply_begins(tmp_path: Path) -> None:
    template = TEMPLATES["ChatML"][1]
    expected = "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat(tmp_path, template) == expected


def test_the_template_named_default_is_used(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ messages[0].content }}!"}]
    assert chat(tmp_path, named) == "Hi!"
    with pytest.raises(TextError, match="the chat templates tool_use, and none is named default"):
        chat(tmp_path, named[:1])


def test_a_template_in_a_file_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "third"}))
    write_tokenizer(tmp_path, "byte_level")
    assert text(vocabulary(tmp_path)) == "third"
    assert chat(tmp_path, "second") == "second"
    (tmp_path / "chat_template.jinja").write_text("first {{ messages[0].role }}")
    assert text(vocabulary(tmp_path)) == "first user"


def test_special_tokens_of_older_checkpoints_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>"})
    )
    assert chat(tmp_path, "{{ bos_token }}{{ eos_token }}") == "<s></s>"


def test_a_gpt2_checkpoint_can_have_a_chat_template(tmp_path: Path) -> None:
    special = {"id": 50256, "content": "<|endoftext|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    (tmp_path / "tokenizer.json").write_text(json.dumps(gpt2s() | {"added_tokens": [special | flags]}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{{ messages[0].content }}<|endoftext|>"})
    )
    found = tokens.of_checkpoint(Config(), tmp_path)
    assert (found.kind, found.chat(HI, max_bytes=100)) == ("gpt2", [39, 72, 50256])


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "byte_level")
    with pytest.raises(TextError, match='this checkpoint has no chat template; send "text"'):
        vocabulary(tmp_path).chat(HI, max_bytes=100)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('Only two may talk') }}", "the chat template refuses them: Only two may talk"),
        ("{% for message in %}", "the chat template is invalid: TemplateSyntaxError: "),
        ("{{ nothing.at.all }}", "the chat template fails: UndefinedError: 'nothing' is undefined"),
        ("{{ 1 // 0 }}", "the chat template fails: ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "the chat template fails: SecurityError: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "the chat template fails: SecurityError"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "the chat template fails: SecurityError"),
        ("{{ namespace(_x=1) }}", "the chat template fails: SecurityError"),
        ("{% include '/etc/passwd' %}", "the chat template fails: TypeError: no loader"),
        ("{% if 1 %}" * 2000 + "{% endif %}" * 2000, "the chat template is invalid: RecursionError"),
        ("{{ " + "(" * 20_000 + ")" * 20_000 + " }}", "the chat template is invalid: "),
        ("{% for n in range(1000000) %}{% endfor %}", "the chat template fails: OverflowError: Range too big"),
        ("{% for n in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "makes more than 10,000 bytes of them"),
        ("{{ 'x' * 10 ** 10 }}", "the chat template fails: MemoryError"),
        ("x" * 2_000_000, "has a chat template of more than 1,048,576 characters"),
        (7, "tokenizer_config.json has a chat_template that is no text"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) and "{" in value else None,
)
def test_a_template_that_cannot_be_rendered_says_why(tmp_path: Path, template: Any, why: str) -> None:
    with pytest.raises(TextError) as refused:
        chat(tmp_path, template)
    assert str(refused.value).startswith("The messages cannot be rendered: ")
    assert why in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_template_that_never_ends_is_stopped_and_text_still_has_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "_SECONDS", 1)
    loops = "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    with pytest.raises(TextError, match="it takes more than 1 seconds of processor time, the limit"):
        chat(tmp_path, loops)
    assert vocabulary(tmp_path).encode("!", add_special_tokens=False) == [0]


def test_a_template_that_fills_the_memory_is_stopped(tmp_path: Path) -> None:
    doubling = "{% set ns = namespace(x='x') %}{% for n in range(50) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    with pytest.raises(TextError, match="the chat template fails: MemoryError"):
        chat(tmp_path, doubling)


def test_messages_are_no_templates(tmp_path: Path) -> None:
    assert chat(tmp_path, "{{ messages[0].content }}", [{"role": "user", "content": "{{ 1 + 1 }}"}]) == "{{ 1 + 1 }}"
