"""The fork server: imports neonize once, and forks a worker for each request of the daemon.

Started by `sessions.forkserver` as `python -m whatsappd.worker.forkserver FD`, with FD one end of
a SOCK_SEQPACKET pair, on which it speaks as `wire.worker` has it.

A worker is forked twice, the middle process ends at once: so that the worker becomes the child of
the daemon (which declared itself subreaper), whom its exit status then reaches, and lives on if
the fork server dies. The server is single-threaded whenever it forks.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from whatsappd.errors import Malformed
from whatsappd.wire.frames import pack
from whatsappd.wire.worker import DESCRIPTORS, MAX_PACKET, company_in_request, pack_hello
from whatsappd.worker.main import leave_signals_to_the_daemon, run_worker
from whatsappd.worker.preload import PreloadError, import_deferred, start_log_thread

#: Set for the second attempt of a fork server whose preloading failed; holds the reason.
_PRELOAD_PROBLEM = "WHATSAPPD_PRELOAD_PROBLEM"


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    leave_signals_to_the_daemon()
    os.umask(0o077)
    # A crashed Go runtime's core would be large, hold keys, and help nobody.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    load_library, problem = _preload()
    gc.collect()
    gc.freeze()
    control.send(pack_hello(problem))
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(control, MAX_PACKET, DESCRIPTORS)
        if not request:
            return  # the daemon closed its end, or is gone
        try:
            company = company_in_request(request, len(descriptors))
            answer: dict[str, object] = {
                "pid": _fork_worker(company, control, descriptors, load_library)
            }
        except (OSError, Malformed) as error:
            answer = {"error": f"cannot fork a worker: {error}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(pack(answer))


def _preload() -> tuple[Callable[[], None], str | None]:
    """Import neonize; give what a worker calls to make it usable, and the problem if there was one.

    The fallback is the plain import in each worker: slower, larger, and sure to work.
    """
    problem = os.environ.get(_PRELOAD_PROBLEM)
    if problem is not None:
        return _import_plainly, problem
    try:
        library = import_deferred()
    except PreloadError as error:
        # What is half imported now would break the workers' own import: begin again without.
        os.environ[_PRELOAD_PROBLEM] = str(error)
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]])  # noqa: S606

    def load() -> None:
        library.load()
        start_log_thread()

    return load, None


def _import_plainly() -> None:
    importlib.import_module("pylibmagic")
    importlib.import_module("neonize.client")


def _fork_worker(
    company: str, control: socket.socket, descriptors: list[int], load_library: Callable[[], None]
) -> int:
    """Fork the worker by way of a middle process, and reap that; the worker's pid.

    Raises:
        OSError: no process could be made.
    """
    report_read, report_write = os.pipe()
    middle = os.fork()
    if middle == 0:
        _middle(company, control, descriptors, load_library, report_write)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        pid = report.read()
    os.waitpid(middle, 0)
    if not pid:
        raise OSError("the middle process could not fork")
    return int(pid)


def _middle(
    company: str,
    control: socket.socket,
    descriptors: list[int],
    load_library: Callable[[], None],
    report: int,
) -> NoReturn:
    try:
        worker = os.fork()
        if worker:
            os.write(report, str(worker).encode())
            os._exit(0)
        os.close(report)
        control.close()
        channel, output = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        # A session of its own: signals to the daemon's terminal or group are not meant for it.
        os.setsid()
        run_worker(company, socket.socket(fileno=channel), load_library)
    finally:
        # Nothing may return into the fork server's loop.
        os._exit(1)


if __name__ == "__main__":
    main()
