"""What a worker keeps: the system calls by their numbers, the places of code, the environment."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

import pytest

from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.value_formats import Choice
from whatsappd.confinement import resolver
from whatsappd.confinement.calls import AARCH64, FORK_SERVER, WORKER, X86_64, numbers_for
from whatsappd.engines.confined import AUTO, OFF, REQUIRED
from whatsappd.engines.neonize.worker.confine import without
from whatsappd.engines.neonize.worker_environment import (
    ports_through,
    proxy_port,
    worker_environment,
)
from whatsappd.monitoring.settings import RecycleSettings
from whatsappd.rules.worker_recycling import WorkerUse, excess

#: SCMP_ARCH_* of <seccomp.h>.
LIBSECCOMP = {X86_64: 0xC000003E, AARCH64: 0xC00000B7}


@pytest.mark.parametrize("machine", LIBSECCOMP)
def test_numbers_are_those_of_libseccomp(machine: str) -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is missing")
    compared = 0
    for name, number in numbers_for(machine).items():
        found = library.seccomp_syscall_resolve_name_arch(LIBSECCOMP[machine], name.encode())
        if found >= 0:  # else it is newer than this libseccomp
            assert found == number, name
            compared += 1
    assert compared > 280


def test_each_call_in_the_lists_exists_somewhere() -> None:
    known = numbers_for(X86_64).keys() | numbers_for(AARCH64).keys()
    for rights in (WORKER, FORK_SERVER):
        assert rights.allowed | rights.unneeded | rights.absent <= known
    assert not WORKER.allowed & (WORKER.unneeded | WORKER.absent)
    assert numbers_for("riscv64") == {}


#: What gives power over others. None of these may get into a list by mistake.
NEVER = """
    ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal kcmp
    execve execveat fork vfork clone3 unshare setns mount umount2 move_mount open_tree fsopen
    pivot_root chroot bpf perf_event_open userfaultfd io_uring_setup io_uring_enter
    io_uring_register keyctl add_key request_key socketpair bind listen accept accept4 tkill
    chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat setxattr fsetxattr utimensat
    truncate link linkat symlink symlinkat mknod mknodat mkdir mkdirat setpriority
    sched_setaffinity sched_setscheduler personality seccomp inotify_init1 fanotify_init shmget
    msgget semget mq_open open_by_handle_at init_module finit_module kexec_load reboot swapon
    setuid setresuid setgid capset setns iopl ioperm acct quotactl settimeofday
"""


def test_no_worker_gets_what_is_for_others() -> None:
    names = NEVER.split()
    known = numbers_for(X86_64).keys() | numbers_for(AARCH64).keys()
    assert set(names) <= known
    assert not WORKER.allowed & set(names)


def test_trees_are_given_without_what_is_apart(tmp_path: Path) -> None:
    for place in ("lib/a", "lib/b", "var/state/companies", "var/log", "bin"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "var" / "state")
    state = tmp_path / "var" / "state"
    assert list(without(tmp_path, [state])) == [
        *(tmp_path / "bin", tmp_path / "lib", tmp_path / "var" / "log")
    ]
    assert list(without(tmp_path / "lib", [state])) == [tmp_path / "lib"]
    assert list(without(state, [state])) == []
    assert list(without(state / "companies", [state])) == []
    assert list(without(tmp_path / "missing", [])) == [tmp_path / "missing"]


def test_a_worker_gets_no_passwords_but_those_of_proxies() -> None:
    given = {
        "WHATSAPPD_LIMITS_REDIS_URL": "redis://:secret@db",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "LD_PRELOAD": "/tmp/x.so",
        "https_proxy": "http://user:word@proxy:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "LC_ALL": "de_DE.UTF-8",
        "TZ": "Europe/Berlin",
        "PYTHONPATH": "/opt/code",
        "GODEBUG": "http2client=0",
    }
    environment = worker_environment(given)
    kept = {"https_proxy", "SSL_CERT_FILE", "LC_ALL", "TZ", "PYTHONPATH"}
    assert {name: given[name] for name in kept}.items() <= environment.items()
    assert "secret" not in "".join(environment.values())
    assert not {"LD_PRELOAD", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"} & environment.keys()
    assert environment["GODEBUG"] == "http2client=0,netdns=go"
    assert worker_environment({"GODEBUG": "netdns=cgo"})["GODEBUG"] == "netdns=cgo"
    assert environment["SQLITE_TMPDIR"] == environment["TMPDIR"] == "."


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://proxy:3128", 3128),
        ("proxy:3128", 3128),
        ("http://user:word@proxy", 80),
        ("https://proxy", 443),
        ("socks5://127.0.0.1:9050", 9050),
        ("socks5://127.0.0.1", 1080),
        ("http://proxy:x", None),
        ("gopher://proxy", None),
    ],
)
def test_ports_of_proxies(url: str, port: int | None) -> None:
    assert proxy_port(url) == port
    named = {port} if port else set()
    assert ports_through({"HTTPS_PROXY": url}) == {443, 53} | named
    assert ports_through({"https_proxy": url}) == {443, 53} | named


def test_the_setting_has_the_words_of_the_protocol() -> None:
    assert DEFINITIONS["sessions.confinement"].format == Choice((AUTO, REQUIRED, OFF))


def test_the_resolvers_file_may_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "resolv.conf"
    monkeypatch.setattr(resolver, "RESOLVER", file)
    monkeypatch.setattr(resolver, "_SHARED", {tmp_path})
    assert resolver.resolver_file() is None  # there is none
    file.write_text("nameserver 127.0.0.1")
    assert resolver.resolver_place() == file
    before = resolver.resolver_file()
    assert before is not None
    file.write_text("nameserver 127.0.0.2")
    assert resolver.resolver_file() == before  # written anew, it can be read as before
    (tmp_path / "new").write_text("nameserver 127.0.0.3")
    (tmp_path / "new").replace(file)
    assert resolver.resolver_file() not in (None, before)
    # A link into a directory of its own: the directory can be read, whatever comes into it.
    own = tmp_path / "run" / "resolve"
    own.mkdir(parents=True)
    (own / "stub.conf").write_text("nameserver 127.0.0.53")
    file.unlink()
    file.symlink_to(own / "stub.conf")
    assert resolver.resolver_place() == own
    assert resolver.resolver_file() is None


def test_a_worker_that_cannot_read_the_new_file_is_recycled_at_any_age() -> None:
    use = WorkerUse(age_ms=0, memory=1, descriptors=1, threads=1)
    limits = RecycleSettings(0, 0, 0)
    assert excess(use, limits) is None
    assert excess(use._replace(outdated="a new file"), limits) == "a new file"
