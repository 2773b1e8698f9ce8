"""Reads the fields of Protocol Buffers messages without their schemas.

For what must be looked at without neonize: which keys a logged message holds (`wire.account_keys`),
and what can be saved of an event that protobuf itself refuses (`engines.neonize.worker.client`).
The published encoding, "wire format" in the Protocol Buffers documentation.
"""

from __future__ import annotations

from collections.abc import Iterator

from whatsappd.errors import Malformed

#: Messages within messages. Real ones are three deep, and neonize hands on some fifty.
MAX_DEPTH = 100

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10  # bytes


def fields(message: bytes, depth: int = 0) -> Iterator[tuple[int, int | bytes, bytes]]:
    """The number and value of each field, in order, and its bytes as they stand.

    Groups, which no message of WhatsApp's uses, are not followed.

    Args:
        depth: how many messages this one lies within.

    Raises:
        Malformed: it is no protobuf, has a group, or lies too deep.
    """
    if depth > MAX_DEPTH:
        raise Malformed("a message is nested too deeply")
    position = 0
    while position < len(message):
        start = position
        key, position = _read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        value: int | bytes
        if wire_type == VARINT:
            value, position = _read_varint(message, position)
        else:
            if wire_type == BYTES:
                size, position = _read_varint(message, position)
            elif wire_type in (FIXED32, FIXED64):
                size = 4 if wire_type == FIXED32 else 8
            else:
                raise Malformed(f"a message has a field of wire type {wire_type}")
            value = message[position : position + size]
            position += size
            if len(value) != size:
                raise Malformed("a message ends within a field")
        yield number, value, message[start:position]


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, a text, or a message within."""
    return _varint(number << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise Malformed("a message ends within a number")
