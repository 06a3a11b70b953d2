"""Schemas of prompts and their tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema

from service.http.schemas.fields import Boolean
from service.jobs.canonical import PromptFields

MAX_MESSAGES = 1000


class MessageSchema(Schema):
    role = fields.String(
        required=True, validate=validate.Length(1, 100), metadata={"description": "such as user, assistant or system"}
    )
    content = fields.String(required=True)


class ShortList(fields.List[Any]):
    """A list whose length is validated before its items."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            for validator in self.validators:
                validator(value)
        return super()._deserialize(value, attr, data, **kwargs)


class PromptSchema(Schema):
    """A prompt, as text or messages."""

    prompts: ClassVar[tuple[str, ...]] = ("text", "messages")  # fields, of which exactly one is required

    text = fields.String()
    messages = ShortList(
        fields.Nested(MessageSchema),
        validate=validate.Length(1, MAX_MESSAGES),
        metadata={"description": "a conversation, which the checkpoint's chat template makes the prompt of a reply"},
    )
    add_special_tokens = Boolean(
        load_default=None,
        allow_none=True,
        metadata={
            "description": "whether the checkpoint's tokenizer adds special tokens, such as the beginning of a text. "
            "The default is true for text; for messages it is false, as the chat template adds them"
        },
    )

    @validates_schema
    def one_prompt(self, data: dict[str, Any], **kwargs: Any) -> None:
        given = [name for name in self.prompts if name in data]
        if len(given) != 1:
            *names, last = (f'"{name}"' for name in self.prompts)
            raise ValidationError(f"Exactly one of {', '.join(names)} and {last} is required.", "text")
        if given == ["tokens"] and data["add_special_tokens"] is not None:
            raise ValidationError("Special tokens are added to text and messages, not to tokens.", "add_special_tokens")


class TokenizeRequestSchema(PromptSchema):
    """A text or messages to tokenize."""

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> PromptFields:
        return PromptFields(**data)


class PieceSchema(Schema):
    """A token and its bytes, since not every token is valid UTF-8 by itself."""

    token = fields.Integer(required=True)
    text = fields.String(required=True)
    bytes = fields.List(fields.Integer(), required=True)
    special = fields.Boolean(
        required=True, metadata={"description": "whether it marks something, as the end of a text; it is no part of it"}
    )


class TokensSchema(Schema):
    """Tokens and what each of them is."""

    tokens = fields.List(fields.Integer(), required=True)
    pieces = fields.List(fields.Nested(PieceSchema), required=True)
