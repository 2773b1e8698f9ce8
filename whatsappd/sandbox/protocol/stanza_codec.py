"""Binary stanzas ("WABinary"): compressed XML, as bytes and as `Node`s.

The bytes of a stanza are one flag byte (bit 2: the rest is zlib-compressed), then one element. An
element is a list: its tag, its attributes as name and value in turn, and last, if the list's length
is even, its content. Every value begins with one byte that says what it is:

- 1 to 235: a token of the dictionary; 236 to 239 and one more byte: a token of two bytes;
- 0, 248, 249: a list (empty; a length of one byte; of two), which is an element, or the child
  elements that are another's content;
- 252, 253, 254: bytes or UTF-8 text, with a length of one byte, of 20 bits, of 32 bits;
- 251, 255: text packed into half bytes, hexadecimal digits (upper case), or digits with - and `.`;
- 250: a JID as user and server; 247: a JID of a device, with one byte for the server and one for
  the device; 245, 246: JIDs of Messenger and other services.

whatsmeow: binary/encoder.go, decoder.go, token/token.go. Every frame carries one stanza, so this is
the hot path: look-ups are precomputed, and the encoded forms of JIDs, which repeat from stanza to
stanza, are remembered.
"""

from __future__ import annotations

import re
import zlib

from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid
from whatsappd.sandbox.protocol.node import Attrs, Node
from whatsappd.sandbox.protocol.noise_frames import MAX_FRAME
from whatsappd.sandbox.protocol.token_dictionary import TokenDictionary
from whatsappd.sandbox.protocol.violations import ProtocolViolation

# The first byte of a value, under whatsmeow's names.
_LIST_EMPTY = 0
_DICTIONARY_0 = 236
_INTEROP_JID = 245
_FB_JID = 246
_AD_JID = 247
_LIST_8 = 248
_LIST_16 = 249
_JID_PAIR = 250
_HEX_8 = 251
_BINARY_8 = 252
_BINARY_20 = 253
_BINARY_32 = 254
_NIBBLE_8 = 255
_JIDS = frozenset({_INTEROP_JID, _FB_JID, _AD_JID, _JID_PAIR})

#: The longest string, in characters, that may be packed: the length has 7 bits.
_PACKED_MAX = 127
#: The byte for the server in a device's JID.
_DOMAINS = {USER_SERVER: 0, LID_SERVER: 1, "hosted": 128, "hosted.lid": 129}
_SERVERS = {domain: server for server, domain in _DOMAINS.items()}

_FLAG_COMPRESSED = 2
_NO_ATTRS: Attrs = {}

#: Levels of elements within each other. Real stanzas have at most a dozen.
MAX_DEPTH = 64
#: Bytes that a compressed stanza may become. whatsmeow has no limit when it reads one, and sends
#: none. Without a limit, 17 KB could become 16 MiB, and that hundreds of megabytes of elements.
MAX_STANZA = MAX_FRAME
#: Encoded JIDs that are remembered: two for each device, one for each user. Cleared when full.
_MAX_JIDS = 20_000

_NIBBLES = re.compile(r"[0-9.\-]+\Z")
_HEXADECIMAL = re.compile(r"[0-9A-F]+\Z")
_TO_NIBBLES = str.maketrans("-.", "ab")
_FROM_NIBBLES = str.maketrans("abf", "-.\0")


class StanzaCodec:
    """Encodes and decodes stanzas with one token dictionary."""

    def __init__(self, dictionary: TokenDictionary) -> None:
        #: The error handler of Python's `decode` for strings. "strict": a stanza with a string that
        #: is not UTF-8 is a violation.
        self.errors = "strict"
        self._single = dictionary.single
        self._double = dictionary.double
        tokens: dict[str, bytes] = {}
        for table in reversed(range(len(dictionary.double))):
            for index, token in enumerate(dictionary.double[table]):
                tokens[token] = bytes((_DICTIONARY_0 + table, index))
        for index, token in enumerate(dictionary.single):
            if token:
                tokens[token] = bytes((index,))
        self._tokens = tokens
        self._jids: dict[Jid, bytes] = {}

    # --- encoding -----------------------------------------------------------------------------

    def encode(self, node: Node) -> bytes:
        """The bytes of a stanza, with the flag byte 0: not compressed."""
        out = bytearray(1)
        self._append_node(out, node)
        return bytes(out)

    def _append_node(self, out: bytearray, node: Node) -> None:
        tag, attrs, content = node
        size = 1 + 2 * len(attrs) + (content is not None)
        out += _LIST_STARTS[size] if size < 256 else _list_start(size)
        tokens = self._tokens
        out += tokens.get(tag) or self._string(tag)
        for key, value in attrs.items():
            out += tokens.get(key) or self._string(key)
            if isinstance(value, Jid):
                out += self._jids.get(value) or self._jid(value)
            else:
                out += tokens.get(value) or self._string(value)
        if content is None:
            return
        if isinstance(content, bytes):
            out += _length(len(content))
            out += content
        elif isinstance(content, str):
            out += tokens.get(content) or self._string(content)
        else:
            out += _list_start(len(content))
            for child in content:
                self._append_node(out, child)

    def _string(self, text: str) -> bytes:
        token = self._tokens.get(text)
        if token is not None:
            return token
        if 0 < len(text) <= _PACKED_MAX:
            if _NIBBLES.match(text):
                return _packed(_NIBBLE_8, text.translate(_TO_NIBBLES))
            if _HEXADECIMAL.match(text):
                return _packed(_HEX_8, text)
        raw = text.encode(errors=self.errors)
        return _length(len(raw)) + raw

    def _jid(self, jid: Jid) -> bytes:
        domain = _DOMAINS.get(jid.server)
        if jid.device and domain is not None:
            # The byte is what the format has room for; the sandbox never gives larger ids.
            encoded = bytes((_AD_JID, domain, jid.device & 0xFF)) + self._string(jid.user)
        else:
            user = self._string(jid.user) if jid.user else bytes((_LIST_EMPTY,))
            encoded = bytes((_JID_PAIR,)) + user + self._string(jid.server)
        if len(self._jids) >= _MAX_JIDS:
            self._jids.clear()
        self._jids[jid] = encoded
        return encoded

    # --- decoding -----------------------------------------------------------------------------

    def decode(self, stanza: bytes) -> Node:
        """The stanza that these bytes, with the flag byte first, are.

        Raises:
            ProtocolViolation: they are no stanza, or have more than `MAX_DEPTH` levels, or are
                compressed and become more than `MAX_STANZA` bytes.
        """
        if not stanza:
            raise ProtocolViolation("an empty frame")
        if stanza[0] & _FLAG_COMPRESSED:
            stanza = b"\0" + _decompress(stanza[1:])
        try:
            node, end = self._read_node(stanza, 1, 0)
        except IndexError as error:
            raise ProtocolViolation("the frame ends within its stanza") from error
        except UnicodeDecodeError as error:
            raise ProtocolViolation("a string of the stanza is not UTF-8") from error
        if end != len(stanza):
            raise ProtocolViolation(f"{len(stanza) - end} bytes follow the stanza")
        return node

    def _read_node(self, data: bytes, position: int, depth: int) -> tuple[Node, int]:
        if depth > MAX_DEPTH:
            raise ProtocolViolation(f"the stanza is nested deeper than {MAX_DEPTH} levels")
        size, position = _read_list_size(data, position)
        tag, position = self._read_value(data, position)
        if not size or not isinstance(tag, str) or not tag:
            raise ProtocolViolation("an element without a tag")
        # Most elements have none: those share one dict, half of what an element costs.
        attrs: Attrs = {} if size > 2 else _NO_ATTRS
        for _ in range((size - 1) >> 1):
            key, position = self._read_value(data, position)
            value, position = self._read_value(data, position)
            if not isinstance(key, str):
                raise ProtocolViolation(f"an attribute of <{tag}> has no name")
            attrs[key] = "" if value is None else value
        if size & 1:
            return Node(tag, attrs), position
        marker = data[position]
        if marker in (_LIST_8, _LIST_16):
            count, position = _read_list_size(data, position)
            children = []
            for _ in range(count):
                child, position = self._read_node(data, position, depth + 1)
                children.append(child)
            return Node(tag, attrs, children), position
        if _BINARY_8 <= marker <= _BINARY_32:
            start, end = _read_length(data, position)
            return Node(tag, attrs, data[start:end]), end
        value, position = self._read_value(data, position)
        return Node(tag, attrs, str(value) if isinstance(value, Jid) else value), position

    def _read_value(self, data: bytes, position: int) -> tuple[str | Jid | None, int]:
        """A string, a JID, or None for an empty list; and the position behind it."""
        marker = data[position]
        if 0 < marker < _DICTIONARY_0:
            return self._single[marker], position + 1
        if marker < _DICTIONARY_0 + len(self._double):
            if marker == _LIST_EMPTY:
                return None, position + 1
            return self._double[marker - _DICTIONARY_0][data[position + 1]], position + 2
        if _BINARY_8 <= marker <= _BINARY_32:
            start, end = _read_length(data, position)
            return data[start:end].decode(errors=self.errors), end
        if marker in (_NIBBLE_8, _HEX_8):
            return _read_packed(data, position)
        if marker == _AD_JID:
            domain, device = data[position + 1], data[position + 2]
            user, position = self._read_user(data, position + 3)
            return Jid(user, _SERVERS.get(domain, USER_SERVER), device), position
        if marker == _JID_PAIR:
            user, position = self._read_user(data, position + 1)
            server, position = self._read_user(data, position)
            return Jid(user, server), position
        if marker in (_FB_JID, _INTEROP_JID):
            user, position = self._read_user(data, position + 1)
            device = data[position] << 8 | data[position + 1]
            server, position = self._read_user(data, position + 2 + 2 * (marker == _INTEROP_JID))
            return Jid(user, server, device), position
        raise ProtocolViolation(f"unknown token {marker} in a stanza")

    def _read_user(self, data: bytes, position: int) -> tuple[str, int]:
        if data[position] in _JIDS:  # looked at first: many within each other would nest calls
            raise ProtocolViolation("a JID within a JID")
        value, position = self._read_value(data, position)
        assert not isinstance(value, Jid)
        return value or "", position


def _list_start(size: int) -> bytes:
    if size < 256:
        return bytes((_LIST_8, size)) if size else bytes((_LIST_EMPTY,))
    return bytes((_LIST_16,)) + size.to_bytes(2, "big")


_LIST_STARTS = tuple(_list_start(size) for size in range(256))


def _length(size: int) -> bytes:
    if size < 256:
        return bytes((_BINARY_8, size))
    if size < 1 << 20:
        return bytes((_BINARY_20,)) + size.to_bytes(3, "big")
    return bytes((_BINARY_32,)) + size.to_bytes(4, "big")


def _packed(marker: int, digits: str) -> bytes:
    odd = len(digits) & 1
    packed = bytes.fromhex(digits + "f" * odd)
    return bytes((marker, len(packed) | odd << 7)) + packed


def _read_packed(data: bytes, position: int) -> tuple[str, int]:
    header = data[position + 1]
    end = position + 2 + (header & 0x7F)
    if end > len(data):
        raise ProtocolViolation("the frame ends within a packed string")
    text = data[position + 2 : end].hex()
    if data[position] == _HEX_8:
        text = text.upper()
    elif any(digit in text for digit in "cde"):
        raise ProtocolViolation("a packed number has an unknown digit")
    else:
        text = text.translate(_FROM_NIBBLES)
    return text[:-1] if header & 0x80 else text, end


def _read_list_size(data: bytes, position: int) -> tuple[int, int]:
    marker = data[position]
    if marker == _LIST_8:
        return data[position + 1], position + 2
    if marker == _LIST_16:
        return data[position + 1] << 8 | data[position + 2], position + 3
    if marker == _LIST_EMPTY:
        return 0, position + 1
    raise ProtocolViolation(f"token {marker} where a list must begin")


def _read_length(data: bytes, position: int) -> tuple[int, int]:
    """The positions where the bytes of a length-prefixed string begin and end."""
    marker = data[position]
    if marker == _BINARY_8:
        start, size = position + 2, data[position + 1]
    elif marker == _BINARY_20:
        start = position + 4
        size = int.from_bytes(data[position + 1 : start], "big") & 0xF_FFFF
    else:
        start = position + 5
        size = int.from_bytes(data[position + 1 : start], "big")
    if start + size > len(data):
        raise ProtocolViolation("the frame ends within a string")
    return start, start + size


def _decompress(data: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(data, MAX_STANZA + 1)
    except zlib.error as error:
        raise ProtocolViolation("a compressed stanza is not valid zlib") from error
    if len(plain) > MAX_STANZA:
        raise ProtocolViolation(f"a compressed stanza exceeds {MAX_STANZA} bytes")
    return plain
