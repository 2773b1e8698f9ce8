"""What hostile code in a worker tries. Run there by `hostile_worker`, which is told of the HOST.

Each attack gives the errno that refused it, or None if it got through. None does harm: signals are
0, and what could be written to is opened only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

HOST: dict[str, Any] = globals().get("HOST", {})

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = os.uname().machine == "x86_64"
CHMOD = "chmod" if X86 else "fchmodat"


def call(x86: int, arm: int, *arguments: Any) -> int:
    """A system call by its numbers on the two machines."""
    values = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(x86 if X86 else arm), *values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def opening(path: str, flags: int = os.O_RDONLY) -> Callable[[], None]:
    return lambda: os.close(os.open(path, flags))


def attach() -> None:
    target = HOST["other_worker"]
    call(101, 117, 16, target, 0, 0)  # PTRACE_ATTACH
    call(101, 117, 17, target, 0, 0)  # PTRACE_DETACH


def read_memory(pid: int) -> Callable[[], None]:
    def read() -> None:
        buffer = ctypes.create_string_buffer(8)
        local = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(buffer), 8))
        remote = ctypes.create_string_buffer(struct.pack("@PN", HOST["mapped"], 8))
        call(310, 270, pid, local, 1, remote, 1, 0)

    return read


def connect_unix(path: str) -> Callable[[], None]:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)

    return connect


def use(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
    return lambda: socket.socket(family, kind, protocol).close()


def bind(kind: int) -> Callable[[], None]:
    def bound() -> None:
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.bind(("127.0.0.1", 0))

    return bound


def listen() -> None:
    with socket.socket() as sock:
        sock.listen()  # to a port that the kernel chooses


def connect_tcp(port: int, *, fast: bool = False) -> Callable[[], None]:
    def connect() -> None:
        with socket.socket() as sock:
            if fast:
                sock.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", port))
            else:
                sock.connect(("127.0.0.1", port))

    return connect


def fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def own_file() -> str:
    with open("mine", "a"):
        return "mine"


def own_signals() -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        import fcntl

        fcntl.fcntl(sock, fcntl.F_SETOWN, HOST["daemon"])


def change_limits() -> None:
    resource.prlimit(HOST["daemon"], resource.RLIMIT_CPU, (2**40, 2**40))


def made_readable() -> None:
    libc_prctl = libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
    if libc_prctl < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def shared_memory() -> None:
    segment = call(29, 194, 0, 4096, 0o1600)
    call(31, 195, segment, 0, 0)


def foreign_numbers() -> None:
    call(0x40000000 + 39, 0x40000000 + 172)  # getpid of x32


#: By Landlock: the files.
FILES = {
    "another company's keys": opening(f"{HOST.get('other')}/session.db"),
    "the same by ..": opening(f"../{HOST.get('other_name')}/session.db"),
    "the same by /proc/self/root": opening(f"/proc/self/root{HOST.get('other')}/session.db"),
    "the same by /proc/self/cwd": opening(f"/proc/self/cwd/../{HOST.get('other_name')}/session.db"),
    "which companies there are": lambda: os.listdir(f"{HOST['state']}/companies"),
    "the daemon's database": opening(f"{HOST.get('state')}/whatsappd.db"),
    "the same, to write": opening(f"{HOST.get('state')}/whatsappd.db", os.O_WRONLY),
    "the mode of the state": opening(f"{HOST.get('state')}/mode", os.O_WRONLY),
    "the configuration": opening(str(HOST.get("config"))),
    "the users": opening("/etc/passwd"),
    "a file in /tmp": opening(f"{HOST.get('outside')}/made", os.O_WRONLY | os.O_CREAT),
    "a library, to write": opening(HOST.get("library", ""), os.O_WRONLY),
    "a file moved out": lambda: os.rename(own_file(), f"{HOST['outside']}/mine"),
    "a file moved in": lambda: os.rename(f"{HOST['outside']}/theirs", "theirs"),
    "a file deleted": lambda: os.unlink(f"{HOST['outside']}/theirs"),
    "the daemon's environment": opening(f"/proc/{HOST.get('daemon')}/environ"),
    "the daemon's memory by a file": opening(f"/proc/{HOST.get('daemon')}/mem", os.O_RDWR),
    "the daemon's command line": opening(f"/proc/{HOST.get('daemon')}/cmdline"),
    "another worker's memory by a file": opening(f"/proc/{HOST.get('other_worker')}/mem"),
    "another worker's descriptors": lambda: os.listdir(f"/proc/{HOST['other_worker']}/fd"),
    "the gateway's port": connect_tcp(HOST.get("port", 1)),
}
#: By seccomp, and so counted under these names.
CALLS: dict[str, tuple[str, Callable[[], Any]]] = {
    "the daemon's socket": ("socket", connect_unix(HOST.get("socket", ""))),
    "an abstract socket": ("socket", connect_unix("\0" + HOST.get("abstract", ""))),
    "a pair of sockets": ("socketpair", lambda: [s.close() for s in socket.socketpair()]),
    "netlink": ("socket", use(socket.AF_NETLINK, socket.SOCK_RAW)),
    "packets": ("socket", use(socket.AF_PACKET, socket.SOCK_RAW)),
    "raw IP": ("socket", use(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "MPTCP": ("socket", use(socket.AF_INET, socket.SOCK_STREAM, 262)),
    "a TCP address": ("bind", bind(socket.SOCK_STREAM)),
    "a UDP address": ("bind", bind(socket.SOCK_DGRAM)),
    "a listener": ("listen", listen),
    "the port by fast open": ("sendto", connect_tcp(HOST.get("port", 1), fast=True)),
    "a signal to the daemon": ("kill", lambda: os.kill(HOST["daemon"], 0)),
    "a signal to a worker": ("kill", lambda: os.kill(HOST["other_worker"], 0)),
    "a signal to all": ("kill", lambda: os.kill(-1, 0)),
    "a signal to a thread": ("tgkill", lambda: call(234, 131, HOST["daemon"], HOST["daemon"], 0)),
    "a signal by tkill": ("tkill", lambda: call(200, 130, HOST["daemon"], 0)),
    "signals by a descriptor": ("fcntl", own_signals),
    "the daemon's limits": ("prlimit64", change_limits),
    "the daemon's priority": ("setpriority", lambda: os.setpriority(0, HOST["daemon"], 0)),
    "a handle of the daemon": ("pidfd_open", lambda: os.close(os.pidfd_open(HOST["daemon"]))),
    "its descriptors": ("pidfd_getfd", lambda: call(438, 438, 0, 0, 0)),
    "the daemon's memory": ("process_vm_readv", read_memory(HOST.get("daemon", 0))),
    "another worker's memory": ("process_vm_readv", read_memory(HOST.get("other_worker", 0))),
    "tracing": ("ptrace", attach),
    "comparing": ("kcmp", lambda: call(312, 272, HOST["daemon"], os.getpid(), 0, 0, 0)),
    "a process": ("clone", fork),
    "a program": ("execve", lambda: os.execv("/nonexistent", ["x"])),
    "a program by descriptor": ("execveat", lambda: call(322, 281, -1, b"/nonexistent", 0, 0, 0)),
    "namespaces": ("unshare", lambda: call(272, 97, 0x10000000)),
    "others' namespaces": ("setns", lambda: call(308, 268, 0, 0)),
    "a mount": ("mount", lambda: call(165, 40, 0, b"/nonexistent", 0, 0, 0)),
    "another root": ("chroot", lambda: os.chroot("/nonexistent")),
    "io_uring": ("io_uring_setup", lambda: call(425, 425, 1, ctypes.create_string_buffer(120))),
    "bpf": ("bpf", lambda: call(321, 280, 0, ctypes.create_string_buffer(16), 16)),
    "perf": ("perf_event_open", lambda: call(298, 241, 0, 0, -1, -1, 0)),
    "userfaultfd": ("userfaultfd", lambda: call(323, 282, 1)),
    "keys": ("keyctl", lambda: call(250, 219, 0, -3, 1)),
    "a weaker filter": ("seccomp", lambda: call(317, 277, 1, 0, 0)),
    "a domain of its own": ("landlock_create_ruleset", lambda: call(444, 444, 0, 0, 1)),
    "memory that others read": ("prctl", made_readable),
    "another user": ("setuid", lambda: os.setuid(os.getuid())),
    "another personality": ("personality", lambda: call(135, 92, 0xFFFFFFFF)),
    "watching a directory": ("inotify_init1", lambda: os.close(call(294, 26, 0))),
    "the database's mode": (
        "chmod" if X86 else "fchmodat",
        lambda: os.chmod(HOST["database"], 0o600),
    ),
    "the database's times": ("utimensat", lambda: os.utime(HOST["database"])),
    "the database's length": ("truncate", lambda: os.truncate(f"{HOST['outside']}/theirs", 1)),
    "a link by name": ("symlink" if X86 else "symlinkat", lambda: os.symlink("/", "link")),
    "a link": ("link" if X86 else "linkat", lambda: os.link(f"{HOST['outside']}/theirs", "link")),
    "a directory": ("mkdir" if X86 else "mkdirat", lambda: os.mkdir("made")),
    "a pipe by name": ("mknodat", lambda: os.mkfifo("pipe")),
    "shared memory": ("shmget", shared_memory),
    "another machine's numbers": ("unknown", foreign_numbers),
}
REFUSALS = {errno.EPERM, errno.EACCES, errno.EXDEV}


def outcome(attack: Callable[[], Any]) -> str | None:
    """The name of the error that refused it; None: it got through."""
    try:
        attack()
    except OSError as error:
        if error.errno in REFUSALS:
            return errno.errorcode[error.errno]
    return None


def work() -> dict[str, Any]:
    """What a worker has to be able to do."""
    import hashlib
    import ssl
    import threading
    import time

    large = os.urandom(1 << 20) * 64
    with open("large", "wb") as file:
        file.write(large)
        os.fsync(file.fileno())
    os.rename("large", "larger")
    with open("larger", "rb") as file:
        same = hashlib.sha256(file.read()).digest() == hashlib.sha256(large).digest()
    os.unlink("larger")
    ran: list[bool] = []
    thread = threading.Thread(target=lambda: ran.append(True))
    thread.start()
    thread.join()
    os.kill(os.getpid(), 0)
    signal.raise_signal(signal.SIGCONT)
    with open("/etc/resolv.conf") as file:
        resolver = file.read()
    paths = ssl.get_default_verify_paths()
    certificates = os.path.realpath(paths.openssl_cafile)
    readable = not os.path.exists(certificates)
    with suppress(FileNotFoundError), open(certificates, "rb") as file:
        readable = bool(file.read(1))
    with open("/proc/self/status") as status:
        own = status.read()
    local = socket.getaddrinfo("localhost", 443)
    zone = time.localtime().tm_zone
    return {
        "64 MB": same,
        "threads": ran == [True],
        "resolver": isinstance(resolver, str),
        "certificates": readable,
        "itself": f"Pid:\t{os.getpid()}" in own,
        "names": bool(local),
        "zone": bool(zone),
    }


def attack_all() -> dict[str, Any]:
    return {
        "files": {name: outcome(attack) for name, attack in FILES.items()},
        "calls": {name: outcome(attack) for name, (_, attack) in CALLS.items()},
    }
