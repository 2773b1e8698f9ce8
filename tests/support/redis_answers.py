"""A Redis that answers what a test says: nobody can make a sound one give a wrong answer."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

#: What a sound one answers to what coredis asks when it connects, and when it looks.
SOUND = {
    b"HELLO": b"%3\r\n+proto\r\n:3\r\n+version\r\n+7.0.0\r\n+id\r\n:1\r\n",
    b"PING": b"+PONG\r\n",
    b"EVALSHA": b":0\r\n",
}


@asynccontextmanager
async def answering(answers: Mapping[bytes, bytes], *, hang_up: bool) -> AsyncIterator[str]:
    """Such a Redis; its URL.

    Args:
        answers: by the command's name (the limiter's script comes as EVALSHA); others are those of
            a sound one.
        hang_up: whether the connection ends behind one of `answers`.
    """

    async def serve(stream: trio.SocketStream) -> None:
        unread = b""
        with suppress(trio.BrokenResourceError):
            while True:
                command, unread = _command(unread)
                if command is None:
                    data = await stream.receive_some()
                    if not data:
                        return
                    unread += data
                    continue
                given = answers.get(command)
                await stream.send_all(SOUND.get(command, b"+OK\r\n") if given is None else given)
                if given is not None and hang_up:
                    return

    with tempfile.TemporaryDirectory(prefix="wr-") as directory:
        path = Path(directory) / "redis.sock"
        listening = trio.socket.socket(socket.AF_UNIX)
        await listening.bind(str(path))
        listening.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
            yield f"unix://{path}"
            nursery.cancel_scope.cancel()


def _command(data: bytes) -> tuple[bytes | None, bytes]:
    """The name of the first whole command in `data` (an array of strings), and what follows."""
    lines = data.split(b"\r\n")
    count = int(lines[0][1:]) if len(lines) > 1 else -1
    place = len(lines[0]) + 2
    name = None
    for _ in range(count):
        head, found, _ = data[place:].partition(b"\r\n")
        end = place + len(head) + 2 + int(head[1:] or 0) + 2
        if not found or end > len(data):
            return None, data
        name = name or data[place + len(head) + 2 : end - 2].upper()
        place = end
    return (name, data[place:]) if count > 0 else (None, data)
