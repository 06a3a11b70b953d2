"""Chat templates of checkpoints, rendered as transformers renders them.

A template is a program from elsewhere: it runs in Jinja's sandbox, in the process of tokenizer_process.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from worker.weights.folder import Folder

TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
TEMPLATE, OLD_TEMPLATE = "chat_template.jinja", "chat_template.json"
_MAX_CONFIG = 16 << 20  # bytes of a tokenizer_config.json: Gemma's takes 1 MB
_MAX_TEMPLATE = 1 << 20  # bytes; long ones take 20 KB
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Message = Mapping[str, Any]


class ChatError(ValueError):
    """Messages that a checkpoint has no prompt for; the message says why."""


def read_config(folder: Folder) -> dict[str, Any]:
    """Return a checkpoint's tokenizer_config.json, with the special tokens of special_tokens_map.json; {} without.

    Raises FileError.
    """
    found = folder.json(TOKENIZER_CONFIG, _MAX_CONFIG) if folder.find(TOKENIZER_CONFIG) else {}
    if "added_tokens_decoder" not in found and folder.find(SPECIAL_TOKENS):  # as in transformers: older checkpoints
        found |= folder.json(SPECIAL_TOKENS, _MAX_CONFIG)
    return found


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a tokenizer_config.json names, such as `bos_token`."""
    found = {}
    for name, value in config.items():
        token = value.get("content") if name in _NAMED and isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(token, str):
            found[name] = token
    return found


def read_template(folder: Folder, config: Mapping[str, Any]) -> str:
    """Return a checkpoint's chat template: a file, or in tokenizer_config.json. Raises ChatError and FileError."""
    path = folder.find(TEMPLATE)
    if path is not None:
        with path.open("rb") as file:
            content = file.read(_MAX_TEMPLATE + 1)
        return _checked(content.decode(errors="replace"), TEMPLATE)
    source, found = TOKENIZER_CONFIG, config.get("chat_template")
    if found is None and folder.find(OLD_TEMPLATE):
        source, found = OLD_TEMPLATE, folder.json(OLD_TEMPLATE, _MAX_CONFIG).get("chat_template")
    if found is None:
        raise ChatError('this checkpoint has no chat template; send "text"')
    if isinstance(found, list):
        named = {part["name"]: part.get("template") for part in found if isinstance(part, dict) and "name" in part}
        if "default" not in named:
            raise ChatError(f"{source} has the chat templates {', '.join(map(str, named))}, and none is named default")
        found = named["default"]
    if not isinstance(found, str):
        raise ChatError(f"{source} has a chat_template that is no text")
    return _checked(found, source)


def _checked(template: str, source: str) -> str:
    if len(template) > _MAX_TEMPLATE:
        raise ChatError(f"{source} has a chat template of more than {_MAX_TEMPLATE:,} characters")
    return template


def compiled(template: str) -> jinja2.Template:
    """Return a template, compiled with what transformers gives to one. Raises ChatError."""
    try:
        return _environment().from_string(template)
    except Exception as error:
        raise ChatError(f"the chat template is invalid: {_reason(error)}") from None


def render(template: jinja2.Template, messages: Sequence[Message], variables: Mapping[str, str], max_bytes: int) -> str:
    """Return the prompt of a conversation, up to where the model's reply begins. Raises ChatError."""
    parts, size = [], 0
    try:
        for part in template.generate(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            **variables,
        ):
            size += len(part.encode())
            if size > max_bytes:
                raise ChatError(f"the chat template makes more than {max_bytes:,} bytes of them (MAX_PROMPT_BYTES)")
            parts.append(part)
    except ChatError:
        raise
    except _Refused as error:
        raise ChatError(f"the chat template refuses them: {error}") from None
    except Exception as error:
        raise ChatError(f"the chat template fails: {_reason(error)}") from None
    return "".join(parts)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Refused(jinja2.TemplateError):
    """A template called raise_exception."""


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),
        "namespace": _Namespace,
        "dict": lambda *args, **values: dict(*args, **values),  # not the type, whose attributes lead further
    }
    return environment


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks the model's replies for training; here it is only a scope."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class _Namespace(Namespace):
    """Jinja's namespace, without attributes that begin with an underscore: some would lead out of the sandbox."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args
        for name in (attributes := dict(*rest, **values)):
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have the attribute {name!r}")


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
