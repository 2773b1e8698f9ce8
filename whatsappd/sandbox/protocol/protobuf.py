"""Protocol Buffers without schemas: messages as field numbers with integers or bytes.

The handshake (`noise`), the client's payload (`server.login`) and device identities (`adv`) are
protobuf. Each of those modules names the field numbers that it uses, after whatsmeow's .proto
files; this one knows the wire types only (protobuf.dev, "Encoding").
"""

from __future__ import annotations

from collections.abc import Mapping

from whatsappd.sandbox.protocol.violations import ProtocolViolation

_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5

#: A varint of 64 bits has at most 10 bytes.
_MAX_VARINT = 10

Value = int | bytes


class ProtobufFields:
    """A decoded message. Of a field that occurs several times, the last value counts.

    The methods raise ProtocolViolation if the field has another wire type than was asked for.
    """

    __slots__ = ("_values",)

    def __init__(self, values: dict[int, Value]) -> None:
        self._values = values

    def __contains__(self, number: int) -> bool:
        return number in self._values

    def data(self, number: int) -> bytes:
        """A `bytes`, `string` or message field; empty when absent."""
        value = self._values.get(number, b"")
        if isinstance(value, int):
            raise ProtocolViolation(f"protobuf field {number} is a number, not bytes")
        return value

    def text(self, number: int) -> str:
        """A `string` field; empty when absent. Not UTF-8: ProtocolViolation."""
        try:
            return self.data(number).decode()
        except UnicodeDecodeError as error:
            raise ProtocolViolation(f"protobuf field {number} is not UTF-8") from error

    def number(self, number: int) -> int:
        """An unsigned integer or bool field; 0 when absent."""
        value = self._values.get(number, 0)
        if isinstance(value, bytes):
            raise ProtocolViolation(f"protobuf field {number} is bytes, not a number")
        return value

    def message(self, number: int) -> ProtobufFields:
        """A message within the message; one without fields when absent."""
        return decode(self.data(number))


def encode(fields: Mapping[int, Value | str]) -> bytes:
    """The bytes of a message with these fields, in ascending order of their numbers.

    Integers (from 0) become varints; bytes and strings become length-delimited fields. A message
    within the message is passed encoded.
    """
    out = bytearray()
    for number in sorted(fields):
        value = fields[number]
        if isinstance(value, int):
            _append_varint(out, number << 3 | _VARINT)
            _append_varint(out, value)
        else:
            data = value.encode() if isinstance(value, str) else value
            _append_varint(out, number << 3 | _BYTES)
            _append_varint(out, len(data))
            out += data
    return bytes(out)


def decode(data: bytes) -> ProtobufFields:
    """The fields of a message; messages within it are bytes until `message` is called.

    Raises:
        ProtocolViolation: the bytes are no protobuf message.
    """
    values: dict[int, Value] = {}
    position = 0
    while position < len(data):
        key, position = _read_varint(data, position)
        number, wire_type = key >> 3, key & 7
        if not number:
            raise ProtocolViolation("protobuf: field number 0")
        if wire_type == _VARINT:
            values[number], position = _read_varint(data, position)
            continue
        if wire_type == _BYTES:
            length, position = _read_varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise ProtocolViolation(f"protobuf: unknown wire type {wire_type}")
        piece = data[position : position + length]
        if len(piece) != length:
            raise ProtocolViolation("protobuf: the message ends within a field")
        values[number] = piece if wire_type == _BYTES else int.from_bytes(piece, "little")
        position += length
    return ProtobufFields(values)


def _append_varint(out: bytearray, value: int) -> None:
    if value < 0:
        raise ValueError("negative varints are not used by these messages")
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT):
        if position + index >= len(data):
            raise ProtocolViolation("protobuf: the message ends within a number")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + index + 1
    raise ProtocolViolation("protobuf: a number is longer than 10 bytes")
