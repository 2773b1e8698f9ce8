"""What a message says: each kind of content, defined once for both directions and every door.

The RPC, REST, batch files, the outbox, events and webhooks all use these structures, as maps with
`kind` in them: `{"kind": "text", "text": "Hello"}`. How to add a kind:

1. Define it here, with its bounds, and add it to `Sendable`, `Receivable`, or both.
2. Give it an encoder, a decoder or both in `engines.neonize.worker.contents`.
3. Test it with real clients in the sandbox (`tests/e2e/test_contents.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, get_args

import msgspec

from whatsappd.errors import InvalidParams

#: The longest text, in characters: WhatsApp's own limit.
MAX_TEXT = 65_536


class Content(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """Base of all kinds. Bounds in the fields hold for what is sent and for what arrives."""

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    @property
    def short_text(self) -> str:
        """What people read of it: the `text` that stands beside `content` in rows and events."""
        return ""

    def as_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return wire


class Text(Content, tag="text", frozen=True):
    """A text message."""

    text: Annotated[
        str,
        msgspec.Meta(
            min_length=1, max_length=MAX_TEXT, examples=["Your order is ready."],
            description="What it says.",
        ),
    ]  # fmt: skip

    @property
    def short_text(self) -> str:
        return self.text


class Unsupported(Content, tag="unsupported", frozen=True, omit_defaults=True):
    """Something arrived for which there is no kind here yet.

    `type` is the protocol's own name for it (`image`, `poll`, ...), `text` its text or caption.
    `raw` is the serialized message, without the keys that clients exchange; it is left out if it is
    too large.
    """

    type: str
    text: str = ""
    raw: bytes | None = None

    @property
    def short_text(self) -> str:
        return self.text


#: The kinds that can be sent, and those that arrive.
Sendable: TypeAlias = Text
Receivable: TypeAlias = Text | Unsupported


def kinds_of(union: Any) -> tuple[str, ...]:
    """The names of the kinds in `Sendable` or `Receivable`."""
    return tuple(str(each.__struct_config__.tag) for each in get_args(union) or (union,))


def sendable_from(value: Any, *, field: str = "content") -> Sendable:
    """The content that a plain map describes, for doors that check before they ask the daemon.

    Raises:
        InvalidParams: it cannot be sent; the message names the place, and the kinds that exist.
    """
    known = ", ".join(kinds_of(Sendable))
    if not isinstance(value, dict):
        raise InvalidParams(f"{field}: must be an object with a kind: {known}", field=field)
    kind = value.get("kind")
    if kind not in kinds_of(Sendable):
        wrong = "is missing" if kind is None else f"{kind!r:.80} cannot be sent"
        raise InvalidParams(f"{field}.kind: {wrong} (accepted: {known})", field=field)
    try:
        content: Sendable = msgspec.convert(value, Sendable)
        msgspec.json.encode(content)
        return content
    except UnicodeEncodeError as error:  # halves of surrogate pairs, which JSON can write
        raise InvalidParams(f"{field}: a string in it is no UTF-8 text", field=field) from error
    except msgspec.ValidationError as error:
        reason, _, path = str(error).rpartition(" - at `$")
        place = f"{field}{path.removesuffix('`')}" if reason else field
        raise InvalidParams(f"{place}: {reason or error}"[:400], field=field) from error
