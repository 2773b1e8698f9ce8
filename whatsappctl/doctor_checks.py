"""What `whatsappctl doctor` looks at: the installation and its host, with or without a daemon.

Each check gives findings, and none relies on another's success. Nothing here changes anything.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from whatsappd import __version__
from whatsappd.errors import WhatsappdError

OK, WARN, FAIL = "ok", "warn", "FAIL"

WHATSAPP = "web.whatsapp.com"
#: Seconds for the name, and as many for the connection. One that works takes a tenth of it.
REACH_WITHIN = 3.0
#: Below this, SQLite and workers soon meet a full disk.
_FREE_BYTES = 500_000_000
#: Descriptors of the daemon: for itself and some connections, and for each session.
_DESCRIPTORS = 256
_DESCRIPTORS_EACH = 8
#: Threads of a worker (Go's and neonize's) count against the limit of tasks.
_TASKS = 64
_TASKS_EACH = 25
#: What `adjtimex` returns while nobody keeps the clock (TIME_ERROR).
_CLOCK_UNKEPT = 5
_FILES_LOOKED_AT = 10_000


_NEWER_KERNEL = "use Linux 6.12 or later with Landlock; see `whatsappctl help security`"


class DoctorFinding(NamedTuple):
    """`level`: OK, WARN (it works, but), FAIL. `remedy`: what to do, unless all is well."""

    name: str
    level: str
    detail: str
    remedy: str | None = None

    def as_wire(self) -> dict[str, Any]:
        return {**self._asdict(), "level": self.level.lower()}


def versions(hello: dict[str, Any] | None) -> Iterator[DoctorFinding]:
    yield DoctorFinding("python", OK, ".".join(map(str, sys.version_info[:3])))
    if hello is None or hello["version"] == __version__:
        yield DoctorFinding("whatsappd", OK, __version__)
    else:
        detail = f"{__version__} is installed, but {hello['version']} runs"
        yield DoctorFinding("whatsappd", WARN, detail, "restart the daemon")
    wanted = _pinned("neonize")
    try:
        found = version("neonize")
    except PackageNotFoundError:
        yield DoctorFinding(
            "neonize", FAIL, "it is not installed: no session can start", "install whatsappd anew"
        )
        return
    if wanted is not None and found != wanted:
        yield DoctorFinding(
            "neonize", FAIL, f"{found}, but whatsappd is made for {wanted}",
            f"pip install neonize=={wanted}",
        )  # fmt: skip
    else:
        yield DoctorFinding("neonize", OK, found)


def _pinned(package: str) -> str | None:
    """The version that whatsappd asks for; None if that is not known."""
    try:
        needed = requires("whatsappd") or []
    except PackageNotFoundError:
        return None
    for line in needed:
        name, pinned, number = line.partition("==")
        if pinned and name.strip() == package:
            return number.split(";")[0].strip()
    return None


def answers(path: str, hello: dict[str, Any] | None, error: WhatsappdError | None) -> DoctorFinding:
    """Whether the daemon answers on its socket: what asking it brought."""
    if hello is not None:
        mode = "" if hello["mode"] == "real" else f", in {hello['mode']} mode"
        return DoctorFinding("daemon", OK, f"pid {hello['pid']} answers on {path}{mode}")
    assert error is not None
    return DoctorFinding("daemon", FAIL, error.message, "or name another socket with --socket")


def socket_permissions(path: str) -> Iterator[DoctorFinding]:
    try:
        mode = stat.S_IMODE(Path(path).stat().st_mode)
        above = stat.S_IMODE(Path(path).parent.stat().st_mode)
    except OSError:
        return  # whether it answers was said
    if mode & 0o002 and above & 0o001:
        yield DoctorFinding(
            "socket", WARN, f"every user of this host may connect (mode {mode:04o})",
            f"chmod o-rwx {path}; callers belong into the group that owns it",
        )  # fmt: skip
    else:
        yield DoctorFinding("socket", OK, f"mode {mode:04o} in a directory of mode {above:04o}")


def state_permissions(directory: str) -> DoctorFinding:
    """Whether the keys of the accounts are this user's alone."""
    path = Path(directory)
    try:
        owner = path.stat().st_uid
        for entry in islice(_entries(path), _FILES_LOOKED_AT):
            info = entry.lstat()
            mode = stat.S_IMODE(info.st_mode)
            if mode & 0o077 and not _is_meant_for_others(info.st_mode):
                return DoctorFinding(
                    "state", FAIL, f"{entry} is open to others (mode {mode:04o})",
                    f"chmod -R go= {path}",
                )  # fmt: skip
            if info.st_uid != owner:
                return DoctorFinding(
                    "state", FAIL, f"{entry} belongs to user {info.st_uid}, not to {owner}",
                    f"chown -R {owner} {path}",
                )  # fmt: skip
    except FileNotFoundError:
        return DoctorFinding("state", OK, f"{path} does not exist yet: the daemon makes it")
    except PermissionError:
        return DoctorFinding(
            "state", WARN, f"{path} is another user's: it cannot be looked at",
            "run `whatsappctl doctor` as the daemon's user",
        )  # fmt: skip
    return DoctorFinding("state", OK, f"{path} is private")


def _entries(path: Path) -> Iterator[Path]:
    """What the daemon keeps, down to the companies' files; a sandbox's own files do not matter."""
    yield path
    yield from path.iterdir()
    companies = path / "companies"
    if companies.is_dir():
        for company in companies.iterdir():
            yield company
            if company.is_dir():
                yield from company.iterdir()


def _is_meant_for_others(mode: int) -> bool:
    return stat.S_ISLNK(mode) or stat.S_ISSOCK(mode)


def count_companies(directory: str) -> int:
    """How many companies there are, as far as this user may see."""
    try:
        return sum(1 for _ in (Path(directory) / "companies").iterdir())
    except OSError:
        return 0


def disk(directory: str) -> DoctorFinding:
    path = Path(directory)
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        found = os.statvfs(path)
    except OSError as error:
        return DoctorFinding("disk", FAIL, f"{path}: {error.strerror}", "look at its mount")
    free = found.f_bavail * found.f_frsize
    detail = f"{free >> 20} MiB are free where {directory} is"
    if free < _FREE_BYTES:
        return DoctorFinding("disk", FAIL, detail, "make room, or move the state directory")
    if found.f_files and found.f_favail < 1000:
        return DoctorFinding(
            "disk", FAIL, f"only {found.f_favail} inodes are free", "delete some files"
        )
    return DoctorFinding("disk", OK, detail)


def clock() -> DoctorFinding:
    """WhatsApp's messages carry times, and its certificates have dates."""
    made = Path(__file__).stat().st_mtime
    if time.time() < made - 86_400:
        return DoctorFinding(
            "clock", FAIL, "the clock stands before the day this was installed",
            "set it, and let a time service keep it (timedatectl set-ntp true)",
        )  # fmt: skip
    try:
        # struct timex, zeroed: modes = 0 only asks. It has at most 208 bytes.
        unkept = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) == _CLOCK_UNKEPT
    except (OSError, AttributeError):
        return DoctorFinding("clock", OK, "plausible; who keeps it is not known")
    if unkept:
        return DoctorFinding(
            "clock", WARN, "nobody keeps it in step, as far as the kernel knows",
            "run a time service: timedatectl set-ntp true",
        )  # fmt: skip
    return DoctorFinding("clock", OK, "kept in step")


def open_files(pid: int | None, companies: int) -> DoctorFinding:
    """The limit that the daemon has, or that one started here would have."""
    limit = _limit_of(pid)
    needed = _DESCRIPTORS + _DESCRIPTORS_EACH * companies
    if limit is None:
        return DoctorFinding("open files", OK, f"the limit is not known; {needed} are needed")
    detail = f"the limit is {limit}; {companies} companies need about {needed}"
    if limit < needed:
        return DoctorFinding(
            "open files", FAIL, detail,
            "raise LimitNOFILE= in the service's unit, or `ulimit -Hn`",
        )  # fmt: skip
    return DoctorFinding("open files", OK, detail)


def _limit_of(pid: int | None) -> int | None:
    """The hard limit, which the daemon makes its own; None: unlimited, or not known."""
    try:
        lines = Path(f"/proc/{pid or 'self'}/limits").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("Max open files"):
            hard = line.split()[4]
            return int(hard) if hard.isdigit() else None
    return None


def tasks(pid: int | None, companies: int) -> Iterator[DoctorFinding]:
    """The cgroup's limit of processes and threads, of which each worker has some twenty."""
    try:
        lines = Path(f"/proc/{pid or 'self'}/cgroup").read_text().splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::"))
        text = Path(f"/sys/fs/cgroup{group}/pids.max").read_text().strip()
    except (OSError, StopIteration):
        return
    needed = _TASKS + _TASKS_EACH * companies
    if text.isdigit() and int(text) < needed:
        yield DoctorFinding(
            "tasks", FAIL, f"the limit is {text}; {companies} companies need about {needed}",
            "raise TasksMax= in the service's unit",
        )  # fmt: skip
    else:
        yield DoctorFinding(
            "tasks", OK, f"the limit is {text}; {companies} companies need about {needed}"
        )


def whatsapp(*, is_sandboxed: bool) -> DoctorFinding:
    """Whether WhatsApp's servers can be reached from here: by name, and by a TCP connection."""
    trouble = _unreachable(WHATSAPP, 443, REACH_WITHIN)
    if trouble is None:
        return DoctorFinding("whatsapp", OK, f"{WHATSAPP}:443 can be reached")
    if is_sandboxed:
        return DoctorFinding("whatsapp", OK, f"{trouble}; a sandbox does not need it")
    proxies = [name for name in ("HTTPS_PROXY", "https_proxy") if os.environ.get(name)]
    remedy = f"let this host connect to {WHATSAPP}:443 (DNS, firewall, proxy)"
    if proxies:
        remedy += f"; {proxies[0]} is set, and the daemon uses it only if it has it too"
    return DoctorFinding("whatsapp", FAIL, f"WhatsApp cannot be reached: {trouble}", remedy)


def _unreachable(host: str, port: int, within: float) -> str | None:
    """Why not; None if a connection could be made."""
    looked_up: list[tuple[Any, ...]] = []
    failed: list[str] = []

    def look_up() -> None:
        try:
            looked_up.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(f"no address for {host} ({error.strerror or error})")

    # The resolver knows no deadline, so it may keep a thread that nobody waits for.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(within)
    if failed:
        return failed[0]
    if not looked_up:
        return f"no answer from the name server within {within:g} s"
    until = time.monotonic() + within
    trouble = ""
    for family, kind, protocol, _, address in looked_up:
        left = until - time.monotonic()
        if left <= 0:
            break
        with socket.socket(family, kind, protocol) as sock:
            sock.settimeout(left)
            try:
                sock.connect(address)
            except OSError as error:
                reason = error.strerror or f"no answer within {within:g} s"
                trouble = f"{host}:{port} ({address[0]}): {reason}"
            else:
                return None
    return trouble


def confinement(status: dict[str, Any]) -> DoctorFinding:
    """Whether workers are kept from what is not theirs; without a daemon, whether they could be."""
    told = status.get("confinement")
    if told is not None and told["known"]:
        if told["lacking"] is None:
            return DoctorFinding(
                "confinement", OK, f"Landlock {told['landlock']} and seccomp are in force"
            )
        whole = told["landlock"] and told["seccomp"]
        detail = f"workers are {'' if whole else 'NOT '}confined; lacking: {told['lacking']}"
        remedy = "set sessions.confinement to auto" if told["wanted"] == "off" else _NEWER_KERNEL
        return DoctorFinding("confinement", WARN, detail, remedy)
    from whatsappd.confinement import landlock

    try:
        abi = landlock.abi_version()
    except OSError as error:
        return DoctorFinding("confinement", WARN, landlock.why_not(error), _NEWER_KERNEL)
    if abi < landlock.ABI_PORTS:
        detail = f"Landlock {abi} does not know TCP ports"
        return DoctorFinding("confinement", WARN, detail, _NEWER_KERNEL)
    return DoctorFinding("confinement", OK, f"this kernel has Landlock {abi}")


def ffmpeg() -> DoctorFinding:
    missing = [name for name in ("ffmpeg", "ffprobe") if shutil.which(name) is None]
    if missing:
        return DoctorFinding(
            "ffmpeg", WARN,
            f"{' and '.join(missing)} not found: needed for media only (thumbnails, voice notes)",
            "apt install ffmpeg, or what your system calls it",
        )  # fmt: skip
    return DoctorFinding("ffmpeg", OK, "found")
