"""Publishes to a Redis: `SOCKET PAYLOAD END PIPELINED COUNT`, payloads in hex."""

from __future__ import annotations

import socket
import sys


def command(payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nevents\r\n$%d\r\n%b\r\n" % (len(payload), payload)


def main(path: str, payload: str, end: str, pipelined: str, count: str) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    size = int(pipelined)
    batch = command(bytes.fromhex(payload)) * size
    for _ in range(0, int(count), size):
        sock.sendall(batch)
        answered = 0
        while answered < size:
            answered += sock.recv(1 << 16).count(b"\n")
    sock.sendall(command(bytes.fromhex(end)))
    sock.recv(100)


if __name__ == "__main__":
    main(*sys.argv[1:])
