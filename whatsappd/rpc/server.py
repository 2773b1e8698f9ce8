"""The server of the RPC: accepts connections and serves a table of methods on each.

`daemon_socket` starts `serve_rpc` in a nursery of its own and keeps the `RpcServer` that it gets,
to stop it in order. No peer can end the server: an error in a handler ends one request, an error of
a connection ends that connection.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import structlog
import trio

from whatsappd.errors import BadStateDirectory, WhatsappdError
from whatsappd.rpc.exchange import Allow, ExchangeRules, MaySpeak
from whatsappd.rpc.limits import DEFAULT_LIMITS, Limits
from whatsappd.rpc.method import Call, Method, MethodTable
from whatsappd.rpc.peer_credentials import Peer, peer_of
from whatsappd.rpc.server_connection import ServerConnection
from whatsappd.rpc.user_shares import ConnectionCounts, Share, Shares
from whatsappd.supervision import Supervision
from whatsappd.wire.frames import READ_SIZE
from whatsappd.wire.rpc import pack_last_word

log = structlog.get_logger()

#: Connections accepted in one go, before those that exist have their turn.
ACCEPT_AT_ONCE = 64
#: Seconds between tries when the process or the host has no file descriptor or memory left.
ACCEPT_PAUSE = 0.1
#: What accept() fails with when resources are short (accept(2)); they come back by themselves.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: What accept() fails with when the descriptor is no listening socket (any more).
_SOCKET_GONE = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


def allow_all(call: Call, method: Method, arguments: Any) -> None:
    """Everybody whom the socket's file permissions let in may do everything."""


def admit_all(peer: Peer) -> None:
    """Everybody whom the socket's file permissions let in may connect."""


def root_and_this_user(peer: Peer) -> bool:
    """Those who could do anything in our name anyway may say for whom they call."""
    return peer.uid in (0, os.geteuid())


class _Service(NamedTuple):
    """What every connection of one server has in common."""

    rules: ExchangeRules
    #: Asked for each new connection; raises Denied.
    admit: Callable[[Peer], None]
    shares: Shares


class RpcServer:
    """A running server, as its owner sees it."""

    def __init__(self, stop: trio.Event, counts: ConnectionCounts) -> None:
        self.counts = counts
        self._stop = stop
        self._connections: set[ServerConnection] = set()

    def end(self, whose: Callable[[Peer], bool], error: WhatsappdError) -> int:
        """End the connections of those peers at once; how many there were.

        When it returns, nothing of theirs goes on and nothing more leaves for them but `error`:
        what they have in flight is cancelled, subscriptions too, and what waits to be sent is
        dropped. What their sockets already have in the kernel (some 250 KB at the most) is theirs.
        """
        ended = [connection for connection in self._connections if whose(connection.peer)]
        for connection in ended:
            connection.end(error)
        return len(ended)

    def end_actor(self, actor: str, error: WhatsappdError) -> int:
        """End what an actor has going on, as `end` does; how many calls and connections that were.

        Its calls in flight are answered with `error`; connections that are its own (those of its
        subscriptions) end. Other callers on a shared connection notice nothing.
        """
        return sum(connection.end_actor(actor, error) for connection in list(self._connections))

    def stop(self) -> None:
        """Accept no more, refuse new requests, and let `serve_rpc` return once all are answered.

        Returns at once. Idle connections are told `stopping` and closed; requests in flight have
        `Limits.stop_within` seconds. The listening socket stays open: it is the caller's.
        """
        self._stop.set()


async def serve_rpc(
    listening: socket.socket,
    table: MethodTable,
    *,
    allow: Allow = allow_all,
    limits: Limits = DEFAULT_LIMITS,
    may_speak: MaySpeak = root_and_this_user,
    admit: Callable[[Peer], None] = admit_all,
    shares: Shares | None = None,
    supervision: Supervision | None = None,
    task_status: trio.TaskStatus[RpcServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `table` on a listening, nonblocking Unix socket until `RpcServer.stop`.

    Being cancelled closes all connections at once, without answers; `stop` is the orderly end.

    Args:
        allow: asked before each call, with its parameters; raises Denied.
        may_speak: asked when a peer calls in the name of an actor (see `wire.rpc`).
        admit: asked for each new connection; raises Denied, which the peer is told before it is
            closed. Such a peer takes no place.
        shares: what users have of connections and memory; made from `limits` if it is not given.
        supervision: begins accepting anew after an error.

    Raises:
        BadStateDirectory: the listening socket is gone, so nobody can come any more.
    """
    supervision = supervision or Supervision()
    stop = trio.Event()
    shares = shares or Shares(limits)
    service = _Service(ExchangeRules(table, allow, limits, may_speak), admit, shares)
    server = RpcServer(stop, shares.counts)
    async with trio.open_nursery() as nursery:
        accepting = trio.CancelScope()

        async def accept() -> None:
            with accepting:
                await supervision.keep(
                    "accepting",
                    partial(_accept, listening, nursery, server, service),
                    fatal=(BadStateDirectory,),
                )

        nursery.start_soon(accept)
        task_status.started(server)
        await stop.wait()
        accepting.cancel()
        for connection in list(server._connections):
            connection.stop()
        nursery.cancel_scope.deadline = trio.current_time() + limits.stop_within


async def _accept(
    listening: socket.socket,
    nursery: trio.Nursery,
    server: RpcServer,
    service: _Service,
) -> None:
    short = False
    while True:
        await trio.lowlevel.wait_readable(listening)
        for _ in range(ACCEPT_AT_ONCE):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _SHORT_OF:
                    if not short:
                        log.warning("rpc_accept_short", reason=error.strerror)
                    short = True
                    # Nothing announces a free descriptor, so this is the one place that polls.
                    await trio.sleep(ACCEPT_PAUSE)
                    break
                if error.errno in _SOCKET_GONE:
                    raise BadStateDirectory(
                        f"the listening socket is gone: {error.strerror}; start the daemon again"
                    ) from error
                log.debug("rpc_accept_failed", reason=error.strerror)
                continue
            if short:
                log.info("rpc_accept_again")
            short = False
            server.counts.accepted += 1
            sock.setblocking(False)
            try:
                peer = peer_of(sock)
                service.admit(peer)
                share = service.shares.enter(peer)
            except OSError as error:
                log.debug("rpc_peer_lost", reason=error.strerror)
                sock.close()
            except WhatsappdError as error:
                server.counts.refused += 1
                _refuse(sock, error)
            else:
                server.counts.open += 1
                nursery.start_soon(_serve_one, sock, peer, share, server, service)


def _refuse(sock: socket.socket, error: WhatsappdError) -> None:
    with sock:
        try:
            sock.send(pack_last_word(error))
        except OSError as failure:
            log.debug("rpc_refusal_unsent", reason=failure.strerror)
        _hang_up(sock)


def _hang_up(sock: socket.socket) -> None:
    """End both directions, and let go of what the peer sent and nobody will read.

    Closing a Unix socket with unread bytes resets it, and the peer would not read our last words.
    """
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
        while sock.recv(READ_SIZE):
            pass


async def _serve_one(
    sock: socket.socket, peer: Peer, share: Share, server: RpcServer, service: _Service
) -> None:
    connection: ServerConnection | None = None
    try:
        async with trio.open_nursery() as nursery:
            service.admit(peer)  # once more: the rules may have changed since it was accepted
            connection = ServerConnection(sock, peer, share, nursery, service.rules)
            server._connections.add(connection)
            try:
                if server._stop.is_set():
                    connection.stop()
                await connection.serve()
            finally:
                server._connections.discard(connection)
    except Exception as error:
        if connection is None:
            log.debug("rpc_not_admitted", peer_pid=peer.pid, reason=str(error))
        else:
            log.error("rpc_connection_failed", exc_info=error)
    finally:
        if connection is not None:
            connection.release()
        service.shares.leave(share)
        server.counts.open -= 1
        trio.lowlevel.notify_closing(sock)
        _hang_up(sock)
        sock.close()
