"""The sending half of a nonblocking socket: written at once, and bounded when the peer is slow.

A write goes straight into the kernel's buffer, without a task and without a checkpoint. Only what
does not fit is kept, and a task of the owner's nursery sends it when the socket allows. Whole
messages are handed over in one synchronous step, so that cancelling a writer can never leave half
a message on the stream. Both ends use it: `server_connection` and `client`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio

from whatsappd.errors import WhatsappdError
from whatsappd.rules.bounds import Holder, Places


class SocketWriter:
    """Bytes on their way to one peer.

    Args:
        sock: connected and nonblocking; stays the owner's to close.
        nursery: runs the task that sends what did not fit.
        limit: bytes unsent above which `room` waits.
        stalled_after: seconds without progress after which the peer is given up.
        on_broken: called once, when nothing can be sent any more, with the reason in words.
        places: counts the bytes that wait for this peer, for `holder`. When there is no room for
            more, the peer is given up as one that does not read.
    """

    __slots__ = (
        "_holder",
        "_limit",
        "_nursery",
        "_on_broken",
        "_places",
        "_sock",
        "_stalled_after",
        "_unsent",
        "_waiting",
        "broken",
    )

    def __init__(
        self,
        sock: socket.socket,
        nursery: trio.Nursery,
        *,
        limit: int,
        stalled_after: float,
        on_broken: Callable[[str], None],
        places: Places | None = None,
        holder: Holder | None = None,
    ) -> None:
        self._places = places
        self._holder = holder
        self._sock = sock
        self._nursery = nursery
        self._limit = limit
        self._stalled_after = stalled_after
        self._on_broken = on_broken
        self._unsent = bytearray()
        self._waiting = trio.lowlevel.ParkingLot()
        self.broken = False

    @property
    def unsent(self) -> int:
        """Bytes that wait for the peer."""
        return len(self._unsent)

    @property
    def full(self) -> bool:
        """Whether more than the limit waits, so that producers should too."""
        return len(self._unsent) > self._limit

    def write(self, data: bytes) -> None:
        """Send `data`, whole messages, now or as soon as the peer reads. Never blocks or raises.

        Call `room` first when `data` may be large or one of many: this does not look at the limit.
        When the output is broken the data is dropped, as its reader is gone.
        """
        if self.broken:
            return
        if self._unsent:
            self._keep(data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        if sent < len(data) and self._keep(memoryview(data)[sent:]):
            self._nursery.start_soon(self._send_rest, name="rpc output")

    def _keep(self, data: bytes | memoryview) -> bool:
        """Keep what the peer did not take; whether there was room for it."""
        if self._places is not None and self._holder is not None:
            try:
                self._places.take(self._holder, len(data))
            except WhatsappdError as error:
                self._break(error.message)
                return False
        self._unsent += data
        return True

    def _drop(self, size: int) -> None:
        """Forget the first bytes that were kept."""
        if self._places is not None and self._holder is not None and size:
            self._places.give(self._holder, size)
        del self._unsent[:size]

    async def room(self) -> None:
        """Wait until no more than the limit is unsent. A checkpoint only if it has to wait.

        Raises:
            trio.BrokenResourceError: the peer is gone, or did not read for too long.
        """
        while self.full and not self.broken:
            await self._waiting.park()
        if self.broken:
            raise trio.BrokenResourceError("the peer is gone")

    async def drained(self) -> None:
        """Wait until everything has left, or the peer is given up."""
        while self._unsent and not self.broken:
            await self._waiting.park()

    async def _send_rest(self) -> None:
        while self._unsent and not self.broken:
            with trio.move_on_after(self._stalled_after) as patience:
                await trio.lowlevel.wait_writable(self._sock)
            if patience.cancelled_caught:
                self._break(f"it read nothing for {self._stalled_after:g} s")
                return
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                continue
            except OSError as error:
                self._break(error.strerror or str(error))
                return
            self._drop(sent)
            if not self.full:
                self._waiting.unpark_all()

    def close(self) -> None:
        """Send nothing any more, and let go of the owner: `on_broken` is not called for it."""
        self.broken = True
        self._drop(len(self._unsent))
        self._waiting.unpark_all()
        self._on_broken = _nobody

    def _break(self, reason: str) -> None:
        self.broken = True
        self._drop(len(self._unsent))
        self._waiting.unpark_all()
        self._on_broken(reason)


def _nobody(_reason: str) -> None:
    """There is nobody left to tell."""
