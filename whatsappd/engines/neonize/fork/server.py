"""The fork server: imports neonize once, and forks a worker for each request of the daemon.

Started by `engines.neonize.spawn` as `python -P -m whatsappd.engines.neonize.fork.server FD
COMPANIES CONFINEMENT`: FD is one end of a SOCK_SEQPACKET pair, on which it speaks as
`fork.messages` has it; below COMPANIES are the directories of its workers, and CONFINEMENT is
how it and they are confined.

A worker is forked twice, the middle process ends at once: so that the worker becomes the child of
the daemon (which declared itself subreaper), whom its exit status then reaches, and lives on if
the fork server dies. The server is single-threaded whenever it forks. Its answer waits until the
worker has confined itself (see `confine`).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from whatsappd.confinement.process import die_before_others, keep_memory_private
from whatsappd.engines.neonize.fork.messages import (
    ANSWER_DESCRIPTORS,
    DESCRIPTORS,
    MAX_PACKET,
    ForkedWorker,
    ForkRequest,
    pack_forked_worker,
    pack_hello,
    parse_request,
)
from whatsappd.engines.neonize.fork.preload import (
    PreloadError,
    import_deferred,
    import_plainly,
    prepare_import,
    start_log_thread,
)
from whatsappd.engines.neonize.worker.confine import confine_fork_server, confine_worker, prepare
from whatsappd.engines.neonize.worker.main import leave_signals_to_the_daemon, run_worker
from whatsappd.errors import Malformed, WorkerFailed
from whatsappd.wire.frames import pack

#: Set for the second attempt of a fork server whose preloading failed; holds the reason.
_PRELOAD_PROBLEM = "WHATSAPPD_PRELOAD_PROBLEM"


class _ForkAnswer(NamedTuple):
    packet: bytes
    descriptors: list[int]


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    companies, confinement = sys.argv[2:]
    leave_signals_to_the_daemon()
    os.umask(0o077)
    # What a worker takes need not be in its own memory (a memfd is not): the daemon, which all
    # companies depend on, must not be what the kernel finds to be the largest.
    die_before_others()
    # A crashed Go runtime's core would be large, hold keys, and help nobody.
    keep_memory_private()
    load_library, problem = _preload()
    _leave_no_zombies()
    confined = confine_fork_server(companies, confinement)
    gc.collect()
    gc.freeze()
    control.send(pack_hello(problem, confined))
    while True:
        packet, descriptors, _flags, _address = socket.recv_fds(control, MAX_PACKET, DESCRIPTORS)
        if not packet:
            return  # the daemon closed its end, or is gone
        try:
            request = parse_request(packet, len(descriptors))
            prepare(request)
            answer = _fork_worker(request, control, descriptors, load_library)
        except (OSError, Malformed) as error:
            answer = _ForkAnswer(pack({"error": f"cannot fork a worker: {error}"}), [])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        socket.send_fds(control, [answer.packet], answer.descriptors)
        for descriptor in answer.descriptors:
            os.close(descriptor)


def _leave_no_zombies() -> None:
    """Let the kernel reap our children: what neonize's imports start is waited for by nobody."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _preload() -> tuple[Callable[[], None], str | None]:
    """Import neonize; give what a worker calls to make it usable, and the problem if there was one.

    The fallback is the plain import in each worker: slower, larger, and sure to work.
    """
    problem = os.environ.get(_PRELOAD_PROBLEM)
    if problem is not None:
        prepare_import()
        return import_plainly, problem
    try:
        library = import_deferred()
    except PreloadError as error:
        # What is half imported now would break the workers' own import: begin again without.
        os.environ[_PRELOAD_PROBLEM] = str(error)
        command = [sys.executable, "-P", "-m", __spec__.name, *sys.argv[1:]]
        os.execv(sys.executable, command)  # noqa: S606

    def load() -> None:
        library.load()
        start_log_thread()

    return load, None


def _fork_worker(
    request: ForkRequest,
    control: socket.socket,
    descriptors: list[int],
    load_library: Callable[[], None],
) -> _ForkAnswer:
    """Fork the worker by way of a middle process, and reap that; what the worker says of itself.

    Raises:
        OSError: no process could be made, or it ended at once.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            middle = os.fork()
            if middle == 0:
                ours.close()
                _middle(request, control, descriptors, load_library, theirs)
        packet, view, _flags, _address = socket.recv_fds(ours, MAX_PACKET, ANSWER_DESCRIPTORS)
        with suppress(ChildProcessError):  # the kernel reaps it, and tells nobody how it ended
            os.waitpid(middle, 0)
    if not packet:
        raise OSError("it could not be forked, or ended at once; its output tells more")
    return _ForkAnswer(packet, view)


def _middle(
    request: ForkRequest,
    control: socket.socket,
    descriptors: list[int],
    load_library: Callable[[], None],
    report: socket.socket,
) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a worker's children are its own business
        if os.fork():
            os._exit(0)
        control.close()
        channel, output = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        # A session of its own: signals to the daemon's terminal or group are not meant for it.
        os.setsid()
        _confine_and_report(request, channel, report)
        run_worker(request.company, socket.socket(fileno=channel), load_library)
    finally:
        # Nothing may return into the fork server's loop.
        os._exit(1)


def _confine_and_report(request: ForkRequest, channel: int, report: socket.socket) -> None:
    """Become a confined worker, and tell so; or tell why not, and end."""
    with report:
        try:
            confined, view = confine_worker(request, keep=(0, 1, 2, channel, report.fileno()))
        except Exception as error:  # noqa: BLE001 -- whatever it is, the daemon is told, and it ends
            report.send(pack({"error": _reason(error)}))
            os._exit(1)
        packet = pack_forked_worker(ForkedWorker(os.getpid(), confined))
        socket.send_fds(report, [packet], view.descriptors)
        for descriptor in view.descriptors:
            os.close(descriptor)


def _reason(error: Exception) -> str:
    """Short enough for a packet."""
    words = str(error) if isinstance(error, WorkerFailed) else f"cannot confine it: {error!r}"
    return words[: MAX_PACKET // 8]


if __name__ == "__main__":
    main()
