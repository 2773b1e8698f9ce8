"""Converts contents to WhatsApp's protobuf and back: an encoder and a decoder for each kind.

`model.content` has the kinds. A decoder is found by the name of the field of `Message` that holds
it. What has no decoder is told as `Unsupported`, with the protocol's own name for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from whatsappd.model.content import Content, Receivable, Sendable, Text, Unsupported

#: Messages that carry only key material between clients; a person never sees them.
_SILENT = {"senderKeyDistributionMessage", "messageContextInfo"}

#: Characters that are kept of the text of a quoted message.
QUOTED_TEXT = 1024


def text(value: Any) -> str:
    """A protobuf string. One whose bytes are no UTF-8 comes out of protobuf as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


# --- text -----------------------------------------------------------------------------------------


def _encode_text(content: Text, e2e: Any) -> Any:
    return e2e.Message(conversation=content.text)


def _decode_conversation(message: Any) -> Text | None:
    return _said(message.conversation)


def _decode_extended_text(message: Any) -> Text | None:
    return _said(message.extendedTextMessage.text)


def _said(value: Any) -> Text | None:
    """None for an empty one, which says nothing."""
    return Text(text(value)) if value else None


# --- the table ------------------------------------------------------------------------------------

#: By kind: makes a protobuf message, with the module that has its classes.
_ENCODERS: dict[type[Content], Callable[[Any, Any], Any]] = {
    Text: _encode_text,
}
#: By field of `Message`; None if there is nothing in it.
_DECODERS: dict[str, Callable[[Any], Receivable | None]] = {
    "conversation": _decode_conversation,
    "extendedTextMessage": _decode_extended_text,
}


def encoded(content: Sendable, e2e: Any) -> Any:
    """The protobuf message; `e2e` is neonize's module of WAWebProtobufsE2E."""
    return _ENCODERS[type(content)](content, e2e)


def decoded(message: Any, field: str) -> Receivable:
    """The content of a message whose first field that people see is `field`."""
    decode = _DECODERS.get(field)
    content = None if decode is None else decode(message)
    return content or Unsupported(field.removesuffix("Message"), _text_beside(message))


def quoted(message: Any) -> Receivable | None:
    """The content of a message that is quoted, shortened; None if there is nothing in it."""
    names = visible_fields(message)
    if not names:
        return None
    content = decoded(message, names[0])
    if isinstance(content, (Text, Unsupported)):
        content = msgspec.structs.replace(content, text=content.text[:QUOTED_TEXT])
    return content


def visible_fields(message: Any) -> list[str]:
    """The names of a message's fields that a person may see; the first is what it says."""
    return [field.name for field, _ in message.ListFields() if field.name not in _SILENT]


def _text_beside(message: Any) -> str:
    """The text or caption of a message that is not understood."""
    if message.conversation:
        return text(message.conversation)
    if message.HasField("extendedTextMessage"):
        return text(message.extendedTextMessage.text)
    for field, value in message.ListFields():
        if field.message_type is not None and "caption" in field.message_type.fields_by_name:
            return text(value.caption)
    return ""
