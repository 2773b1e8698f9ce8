"""MessagePack frames: the one typed façade over msgpack.

MessagePack values delimit themselves, so a stream of them needs no length prefix.
`MessagePackReader` takes bytes as they arrive and gives back whole values; everything that could
make it buffer or allocate without end has a named limit.
"""

from __future__ import annotations

import threading
from typing import Any, NoReturn

import msgpack

from whatsappd.errors import Malformed, TooLarge, WhatsappdError

#: The largest message either side accepts, in bytes. Texts are at most 64 KiB; the rest is room.
MAX_MESSAGE = 1 << 20
#: The most items of one array or map. An `events.subscribe` with every company fits. A whole
#: message of empty maps takes 70 MB for the 60 ms until it is refused (measured): msgpack has no
#: limit on all containers together, and counting them here would cost every message.
MAX_ITEMS = 10_000
#: How much one read may bring. Buffered bytes stay below MAX_MESSAGE + READ_SIZE.
READ_SIZE = 64 * 1024


#: Pieces of a message that are kept as they came. (A bytearray that grows costs large messages half
#: as much again.)
_MAX_PIECES = 1000


class _Packers(threading.local):
    """A packer for each thread: making one costs more than packing a small message with it."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(use_bin_type=True)


_packers = _Packers()


def pack(value: Any) -> bytes:
    """`value` as MessagePack.

    Raises:
        Malformed: it holds something MessagePack has no form for.
    """
    try:
        return _packers.packer.pack(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError as error:
        # Halves of surrogate pairs. JSON can write them; so do Python's own command line and file
        # names with bytes that are no UTF-8.
        raise Malformed("cannot be packed: a string is no UTF-8 text") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise Malformed(f"cannot be packed: {error}") from error


def unpack(packet: bytes, *, max_message: int = MAX_MESSAGE) -> Any:
    """The value that `packet` is, within the limits of a stream.

    Raises:
        TooLarge: it exceeds a limit.
        Malformed: it is no MessagePack, not the whole of a value, or more than one.
    """
    if len(packet) > max_message:
        raise TooLarge(_too_large(max_message))
    try:
        return msgpack.unpackb(packet, **_rules(max_message))
    except msgpack.ExtraData as error:
        raise Malformed(f"a packet goes on behind its value: {packet!r:.200}") from error
    except _UNREADABLE as error:
        raise _refused(error, max_message) from error


class MessagePackReader:
    """Turns a byte stream into MessagePack values.

    Of a value that is not whole yet, only the bytes are kept. What an unpacker makes of them may
    take a thousand times their size (a list has room for all its items from its first byte on),
    and whoever sends them may leave it at that.

    After an error the stream has no known position any more: close it.
    """

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._max_message = max_message
        self._scanner: msgpack.Unpacker | None = None  # finds where a value ends that came in part
        self._kept: list[bytes] = []  # that part
        self._kept_size = 0
        self._begin()

    def _begin(self) -> None:
        self._fed = 0  # bytes, to this unpacker
        self._complete = 0  # the offset behind its last complete value
        self._unpacker = msgpack.Unpacker(
            # Its default is the whole max_buffer_size, allocated for every connection.
            read_size=READ_SIZE,
            max_buffer_size=self._max_message + READ_SIZE,
            **_rules(self._max_message),
        )

    @property
    def unfinished(self) -> int:
        """How many bytes of a value that is not whole yet are kept; 0 between two values."""
        return self._kept_size

    def feed(self, data: bytes) -> list[Any]:
        """The values that `data` completes, in order.

        Args:
            data: at most READ_SIZE bytes.

        Raises:
            TooLarge: one value exceeds a limit.
            Malformed: the bytes are not MessagePack. Values completed before the bad byte in the
                same call are lost with it, as the connection is.

            What is wrong with a value that comes in pieces may be noticed with its last byte only.
        """
        if self._scanner is not None:
            data = self._keep(data)
            if not data:
                return []
        unpacker = self._unpacker
        values: list[Any] = []
        try:
            unpacker.feed(data)
            self._fed += len(data)
            for value in unpacker:
                values.append(value)
                self._complete = unpacker.tell()
        except _UNREADABLE as error:
            raise _refused(error, self._max_message) from error
        if self._fed != self._complete:
            rest = data[self._complete - self._fed :]
            # The unpacker holds what it made of the rest, and has no way to drop it.
            self._begin()
            self._scanner = msgpack.Unpacker(
                read_size=1, max_buffer_size=self._max_message + READ_SIZE
            )
            self._keep(rest)
        return values

    def _keep(self, data: bytes) -> bytes:
        """All that is kept, and keeps no more, if `data` completes a value; else nothing."""
        scanner = self._scanner
        assert scanner is not None
        self._kept.append(data)
        self._kept_size += len(data)
        if len(self._kept) > _MAX_PIECES:
            self._kept = [b"".join(self._kept)]
        try:
            scanner.feed(data)
            scanner.skip()
        except msgpack.OutOfData:
            if self._kept_size > self._max_message:
                raise TooLarge(_too_large(self._max_message)) from None
            return b""
        except _UNREADABLE as error:
            raise _refused(error, self._max_message) from error
        whole = b"".join(self._kept)
        self._scanner = None
        self._kept.clear()
        self._kept_size = 0
        return whole


#: What an unpacker raises; ValueError covers what is malformed, nested too deeply, or no UTF-8.
_UNREADABLE = (msgpack.BufferFull, ValueError)


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} is not used here")


def _rules(max_message: int) -> dict[str, Any]:
    """How values are unpacked, and what is too large within one."""
    return {
        "raw": False,
        "strict_map_key": True,
        "use_list": True,
        "max_str_len": max_message,
        "max_bin_len": max_message,
        "max_array_len": MAX_ITEMS,
        "max_map_len": MAX_ITEMS,
        "max_ext_len": 0,
        "ext_hook": _no_extension,  # the limit lets those of no bytes pass
    }


def _refused(error: Exception, max_message: int) -> WhatsappdError:
    if isinstance(error, msgpack.BufferFull):
        return TooLarge(_too_large(max_message))
    if isinstance(error, msgpack.StackError):
        return Malformed("the message is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Malformed("a string of the message is not UTF-8")
    # The unpacker words a limit as "N exceeds max_..._len(M)", all else differently.
    if "exceeds max_" in str(error):
        return TooLarge(f"a part of the message is too large: {error}")
    return Malformed(f"not MessagePack: {error or type(error).__name__}")


def _too_large(max_message: int) -> str:
    return f"the message exceeds {max_message} bytes"
