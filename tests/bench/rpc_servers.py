"""The two servers that test_bench_rpc measures, each in a process of its own: `NAME SOCKET`.

`bare` is what trio can do with this framing and nothing else: no validation, no limits, no errors.
"""

from __future__ import annotations

import gc
import socket
import sys

import msgpack
import trio

ANSWER = {"name": "whatsappd", "version": "0.1.0", "protocol": 1, "pid": 12345, "mode": "real"}


def listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1024)
    listening.setblocking(False)
    print("ready", flush=True)
    return listening


async def bare(path: str) -> None:
    async def serve(sock: socket.socket) -> None:
        unpacker = msgpack.Unpacker(read_size=65536, max_buffer_size=1 << 20)
        pack = msgpack.Packer().pack
        while True:
            await trio.lowlevel.wait_readable(sock)
            data = sock.recv(65536)
            if not data:
                sock.close()
                return
            unpacker.feed(data)
            answers = [pack([1, msgid, None, ANSWER]) for _, msgid, _, _ in unpacker]
            sent = sock.send(b"".join(answers))
            assert sent == sum(map(len, answers))

    listening = listen(path)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listening)
            sock, _ = listening.accept()
            sock.setblocking(False)
            nursery.start_soon(serve, sock)


async def whatsappd(path: str) -> None:
    import structlog

    from whatsappd.api.declaration import Declaration, NoParams, Result
    from whatsappd.rpc.method import Call, Method, MethodTable
    from whatsappd.rpc.server import serve_rpc

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))

    def hello(call: Call, params: NoParams) -> dict[str, object]:
        return ANSWER

    table = MethodTable(
        [Method(Declaration("daemon.hello", NoParams, Result, "", writes=False), hello)]
    )
    await serve_rpc(listen(path), table)


if __name__ == "__main__":
    # As the daemon does once it is up (whatsappd.app).
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
    trio.run({"bare": bare, "whatsappd": whatsappd}[sys.argv[1]], sys.argv[2])
