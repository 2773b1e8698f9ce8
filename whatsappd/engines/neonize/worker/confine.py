"""Confines a worker, which runs native code on what strangers send, by Landlock and seccomp.

A worker keeps its own company's directory (files in it, nothing else), the libraries, certificates
and the resolver's files to read, and TCP and UDP outwards. It cannot start or signal another
process, look into one, listen, speak on Unix sockets, or read the daemon's files. The fork server
keeps more, because it makes workers, and handles nothing of a stranger's.

The fork server calls this after the fork, before anything of a stranger's arrives, and while there
is one thread: Landlock restricts the calling thread, and what it starts.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from whatsappd.confinement import landlock, seccomp
from whatsappd.confinement.landlock import IOCTL_DEVICE, READ, READ_FILE, WRITE_FILE, PathRule
from whatsappd.confinement.process import (
    close_all_but,
    drop_capabilities,
    keep_memory_private,
    limit_descriptors,
    no_new_privileges,
)
from whatsappd.confinement.resolver import resolver_place
from whatsappd.engines.confined import OFF, REQUIRED, Confined
from whatsappd.engines.neonize.fork.messages import VIEW, ForkRequest
from whatsappd.errors import WorkerFailed

#: Programs' own files and libraries, where distributions have them.
_LIBRARIES = ("/usr", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
#: Certificates, where distributions have them (crypto/x509/root_linux.go of Go, and more).
_CERTIFICATES = (
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted",
    "/etc/ca-certificates/extracted",
    "/var/lib/ca-certificates",
)
#: What a resolver reads beside its own file, the time zone, and what library loaders read.
_SETTINGS = (
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
)
_KERNEL = (
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size",
    "/proc/sys/net",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/stat",
)
_DEVICES = (
    PathRule("/dev/null", READ_FILE | WRITE_FILE | IOCTL_DEVICE),
    PathRule("/dev/zero", READ_FILE),
    PathRule("/dev/random", READ_FILE),
    PathRule("/dev/urandom", READ_FILE),
)


#: Descriptors of one worker; it needs 20. The kernel counts those that are on their way over Unix
#: sockets for all processes of a user together, and refuses more to whoever has a lower limit: with
#: the daemon's limit (1024 at least), a worker could see to it that the daemon and the fork server
#: send none, and no worker can be started.
_MAX_DESCRIPTORS = 512


class WorkerView(NamedTuple):
    """Descriptors for the daemon, in the order of the fork server's answer."""

    own: list[int]
    listener: int | None

    @property
    def descriptors(self) -> list[int]:
        return [*self.own, *([] if self.listener is None else [self.listener])]


def prepare(request: ForkRequest) -> None:
    """Find out beforehand, and once, what `confine_worker` needs: memory that a worker writes to
    after the fork is its own, and its time is its start's."""
    if request.confinement != OFF:
        _common_rules(tuple(request.apart))


def confine_worker(request: ForkRequest, *, keep: Collection[int]) -> tuple[Confined, WorkerView]:
    """Take from this process, a worker just forked, what it does not need; what is in force then.

    Every descriptor but those to `keep` and the view's is closed. The caller hands on the view, and
    closes it: who has the listener could allow itself what was refused.

    Raises:
        WorkerFailed: the directory cannot be used, or what is required cannot be had.
        OSError: the kernel has it, and refused.
    """
    close_all_but(keep)
    limit_descriptors(_MAX_DESCRIPTORS)
    try:
        os.chdir(request.directory)
    except OSError as error:
        raise WorkerFailed(f"{request.directory}: {error.strerror}") from error
    view = _open_view()
    lacking: list[str] = []
    try:
        drop_capabilities()
    except OSError as error:
        lacking.append(f"root's powers cannot be given up: {error.strerror}")
    no_new_privileges()
    keep_memory_private()
    if request.confinement == OFF:
        return Confined(lacking="it is switched off (sessions.confinement)"), WorkerView(view, None)
    abi = _restrict_files(request, lacking)
    listener = _restrict_calls(lacking)
    confined = Confined(
        landlock=abi,
        seccomp=listener is not _NONE,
        counted=listener is not _NONE and listener is not None,
        lacking="; ".join(lacking) or None,
    )
    if request.confinement == REQUIRED and not confined.is_whole:
        raise WorkerFailed(
            f"workers must be confined (sessions.confinement), and cannot be: {confined.lacking}"
        )
    return confined, WorkerView(view, None if listener is _NONE else listener)


def confine_fork_server(companies: str, confinement: str) -> Confined:
    """Take from the fork server what neither it nor its workers need; what is in force then.

    It may read everything that its user may, because its workers' files can be replaced while it
    runs, and write below `companies` only.

    Raises:
        OSError: the kernel has it, and refused.
    """
    no_new_privileges()
    keep_memory_private()
    if confinement == OFF:
        return Confined(lacking="it is switched off (sessions.confinement)")
    lacking: list[str] = []
    rules = [
        PathRule("/", READ),
        PathRule("/dev/null", WRITE_FILE),
        PathRule(companies, landlock.KEEP_FILES),
    ]
    abi = _landlock(rules, None, lacking)
    has_seccomp = True
    try:
        _require_known_machine()
        seccomp.install(seccomp.fork_server_filter())
        worker_filter(0)  # made once, for all that are forked
    except OSError as error:
        lacking.append(_without_seccomp(error))
        has_seccomp = False
    return Confined(abi, has_seccomp, has_seccomp, "; ".join(lacking) or None)


def _open_view() -> list[int]:
    """What the daemon may not open once the memory is private.

    /proc/self stays open for good: the kernel forgets what is not in use, and with it Landlock's
    rule for it.
    """
    os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    return [os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in VIEW]


# --- files ---------------------------------------------------------------------------------------


def _restrict_files(request: ForkRequest, lacking: list[str]) -> int:
    rules = [
        *_common_rules(tuple(request.apart)),
        PathRule(str(resolver_place()), READ_FILE),
        PathRule("/proc/self", READ),
        PathRule(".", landlock.KEEP_FILES),
    ]
    return _landlock(rules, request.ports, lacking)


@functools.cache
def _common_rules(apart: tuple[str, ...]) -> tuple[PathRule, ...]:
    """Those that are the same for all workers."""
    places = [Path(each).resolve() for each in apart]
    return (
        *(PathRule(str(path), READ) for tree in _trees() for path in without(tree, places)),
        *(PathRule(path, READ) for path in (*_CERTIFICATES, *_SETTINGS, *_KERNEL)),
        *(PathRule(str(path), READ) for path in _named_certificates(places)),
        *_DEVICES,
    )


def _landlock(rules: Iterable[PathRule], ports: Collection[int] | None, lacking: list[str]) -> int:
    """The version that is in force; 0: none."""
    try:
        landlock.abi_version()
    except OSError as error:
        lacking.append(landlock.why_not(error))
        return 0
    abi = landlock.restrict_self(rules, connect_ports=ports)
    if abi < landlock.ABI_PORTS:
        lacking.append(f"Landlock {abi} does not know TCP ports (since Linux 6.7)")
    return abi


def _trees() -> Iterator[Path]:
    """Where the code is: the distribution's, Python's, and ours."""
    ours = Path(__file__).parents[2]
    named = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    places = [*_LIBRARIES, sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path, *named]
    paths = [Path(place).resolve() for place in places if place.startswith("/")]
    yield from dict.fromkeys([*paths, ours.resolve()])


def without(tree: Path, apart: Collection[Path]) -> Iterator[Path]:
    """Paths that together hold what is below `tree`, except what is at or below those `apart`.

    All are resolved already.
    """
    if any(tree.is_relative_to(each) for each in apart):
        return
    if not any(each.is_relative_to(tree) for each in apart):
        yield tree
        return
    try:
        # What a link points to has a rule of its own, or needs none.
        entries = [entry for entry in sorted(tree.iterdir()) if not entry.is_symlink()]
    except OSError:
        return
    for entry in entries:
        yield from without(entry, apart)


def _named_certificates(apart: Collection[Path]) -> Iterator[Path]:
    """What the environment names; a file may lie among those apart, as the sandbox's does."""
    if file := os.environ.get("SSL_CERT_FILE"):
        yield Path(file)
    for place in filter(None, os.environ.get("SSL_CERT_DIR", "").split(":")):
        yield from without(Path(place).resolve(), apart)


# --- system calls --------------------------------------------------------------------------------

#: In the place of a listener: there is no filter at all.
_NONE = -1


def _restrict_calls(lacking: list[str]) -> int | None:
    """The filter's listener; None if nobody can listen, _NONE without a filter."""
    pid = os.getpid()
    try:
        _require_known_machine()
        return seccomp.install_with_listener(worker_filter(pid))
    except OSError as error:
        first = error
    try:
        _require_known_machine()
        seccomp.install(seccomp.worker_filter(pid, is_counted=False))
    except OSError as error:
        lacking.append(_without_seccomp(error))
        return _NONE
    lacking.append(f"refused system calls cannot be counted here ({first.strerror})")
    return None


def _require_known_machine() -> None:
    if not seccomp.is_known_machine():
        raise OSError(0, f"there is no filter for {os.uname().machine}")


def _without_seccomp(error: OSError) -> str:
    return f"system calls cannot be filtered here: {error.strerror}"


#: Stands for the pid in a filter that is made beforehand.
_SOME_PID = 0x7A69D65B


@functools.cache
def _template() -> bytes:
    return seccomp.worker_filter(_SOME_PID, is_counted=True)


def worker_filter(pid: int) -> bytes:
    """`seccomp.worker_filter`, made once: that takes longer than all the rest."""
    return _template().replace(_SOME_PID.to_bytes(4, sys.byteorder), pid.to_bytes(4, sys.byteorder))
