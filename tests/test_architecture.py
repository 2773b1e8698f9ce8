"""The house rules: who may import whom. A picture that code can drift from is no picture."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: All that the daemon's rooms know of an engine. Only where the parts meet, one is chosen.
ENGINE = {"engines.port", "engines.protocol", "engines.decode", "engines.confined"}

#: Room by room, what it may import of ours (its own room is always allowed). Top-level modules of
#: `whatsappd` are rooms of their own.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "confinement": set(),
    "working_directory": set(),
    "clock": set(),
    # The boundary around long-lived tasks: every room that has such tasks uses it.
    "supervision": {"clock", "rules"},
    "model": {"errors"},
    "wire": {"errors", "model"},
    "rules": {"errors", "model"},
    # What must survive, as contracts, and what all implementations share.
    "store": {"metric", "errors", "clock", "model", "wire", "rules"},
    # The twin for tests: the daemon never loads it.
    "store.memory": {"store", "errors", "clock", "model", "wire", "rules"},
    # The composition root, `check` and `restore` use it; everybody else knows `store.port`.
    "store.sqlite": {"store", "errors", "clock", "model", "wire", "rules"},
    "limits": {"setting", "supervision", "errors", "clock", "model", "rules"},
    # The contracts with whatever connects companies to WhatsApp, and the daemon's side of worker
    # processes: of any engine.
    "engines": {
        *("process_table", "confinement", "errors", "clock", "model", "wire", "rules", "setting"),
        "metric",
    },
    # All that knows neonize and whatsmeow: the daemon's side of it,
    "engines.neonize": {
        *("engines", "engines.neonize.fork.messages", "errors", "rules", "wire"),
        "store.sqlite.account_database",
    },
    # and processes of their own: the fork server, and each worker.
    "engines.neonize.fork": {
        *("confinement", "errors", "model", "wire", "engines.protocol", "engines.confined"),
        "engines.neonize.worker",
    },
    "engines.neonize.worker": {
        *("confinement", "logs.writer", "errors", "model", "wire"),
        *("sandbox.neonize_library.noise_root", "engines.protocol", "engines.confined"),
        "engines.neonize.fork",
    },
    "rpc": {
        "metric",
        "setting",
        "working_directory",
        *("api.declaration", "api.checking"),
        "supervision",
        "errors",
        "model",
        "wire",
        "rules.bounds",
        "rules.log_throttle",
    },
    # The loopback WhatsApp: each room knows only those above it.
    "sandbox": set(),
    "sandbox.info_file": {"errors", "files"},
    "sandbox.protocol": {"model"},
    "sandbox.neonize_library": {"errors", "files", "sandbox.protocol"},
    "sandbox.state": {"errors", "files", "model", "sandbox.protocol"},
    "sandbox.phones": {"errors", "model", "sandbox.protocol", "sandbox.state"},
    "sandbox.server": {
        *("errors", "files", "model", "sandbox.info_file", "sandbox.neonize_library"),
        *("sandbox.protocol", "sandbox.state", "sandbox.phones"),
    },
    "files": {"errors"},
    "stdio": set(),
    "command_runner": {"", "stdio", "errors", "wire"},
    "state_directory": {"errors", "model", "setting", "working_directory"},
    "owner_lock": {"errors", "clock"},
    "logs": {"setting", "wire"},
    # How a part declares its settings and its figures.
    "setting": set(),
    "metric": set(),
    "systemd": {"errors"},
    # Puts together what the parts declare.
    "config": {
        *("errors", "model", "working_directory", "setting", "engines.settings", "limits.settings"),
        *("logs.settings", "monitoring.settings", "rpc.settings", "sessions.settings"),
        "state_directory",
    },
    "sessions": {
        "metric",
        "setting",
        *ENGINE,
        "process_table",
        "supervision",
        "confinement",
        "errors",
        "clock",
        "model",
        "wire",
        "rules",
        "store.port",
        "limits",
        "state_directory",
    },
    # What can be asked; clients, the gateway and the manual know it too.
    "api": {"errors", "model", "rules", "limits.settings"},
    # What answers in the daemon.
    "handlers": {
        *("", "api", "errors", "clock", "model", "wire", "rules", "limits", "sessions"),
        *("rpc", "store.port", "store.audit_trail"),
        *("monitoring", "supervision", *ENGINE),
    },
    "monitoring": {
        "confinement.resolver",
        *("", "errors", "clock", "model", "wire", "rules", "limits", "sessions", "rpc"),
        *("store.port", "store.metrics"),
        *("supervision", "logs.writer", *ENGINE, "engines.metrics", "setting", "metric"),
        "state_directory",
    },
    "daemon_run": {
        "config",
        "rpc.listener",
        "shutdown",
        "state_directory",
        "supervision",
        "systemd",
    },
    "daemon_socket": {
        *("daemon_run", "shutdown", "errors", "handlers", "config", "monitoring", "rpc", "rules"),
        *("garbage_collection", "systemd"),
    },
    # Who hears the signals, and sees to it that the process ends.
    "shutdown": {"errors", "process_table"},
    "process_table": set(),
    "garbage_collection": set(),
    "signals": {"shutdown", "supervision", "errors", "config", "systemd"},
    "gateway": {
        *("api", "supervision", "", "errors", "model", "wire", "rules", "rpc.client", "config"),
        *("rpc.listener", "shutdown", "logs.setup"),  # it makes the gateway's own Unix socket, too
        "manual",  # the guides, which it serves
        *("garbage_collection", "working_directory"),
    },
    "ctl": {
        *("", "errors", "model", "wire", "files", "stdio", "command_runner"),
        *("confinement.landlock", "manual"),
    },
    # The guides and how they are shown.
    "manual": set(),
    # Run by developers and by the build: what the guides' tables and the man pages are made from.
    "manual.generated": {"api", "config", "errors", "monitoring.metrics", "rules"},
    "manual.man_pages": {"", "cli", "ctl", "manual"},
    "manual.build_hook": {"manual.man_pages"},
    "manual.__main__": {"manual", "manual.generated", "manual.man_pages"},
}
#: The places where parts meet may import everything of the daemon.
MEETING_PLACES = {
    "app",
    "check",
    "restore",
    "cli",
    "__main__",
    "demo",
    "sandbox_process",
    "sandbox_app",
    "",
}

#: Libraries that a room must not import. The pure rooms know no runtime; the daemon loads no Go.
FORBIDDEN_LIBRARIES: dict[str, set[str]] = {
    # msgspec is no runtime: it declares what contents and messages are, and checks them, once for
    # all doors. `whatsappctl` does not load those modules to send a text: msgspec
    # would add a fifth to the time that takes.
    "model": {"trio", "structlog", "msgpack", "neonize", "click"},
    "wire": {"trio", "structlog", "msgspec", "neonize", "click"},
    "rules": {"trio", "structlog", "msgspec", "msgpack", "neonize", "click", "random", "time"},
    "engines.neonize.fork": {"trio", "structlog", "msgspec", "click"},
    "engines.neonize.worker": {"trio", "structlog", "click"},
    "sandbox.info_file": {"trio", "structlog", "msgspec", "neonize", "click"},
    # Sans-IO: no files, no sockets, no runtime.
    "sandbox.protocol": {
        *("trio", "socket", "ssl", "sqlite3", "pathlib", "os", "structlog", "msgspec", "neonize"),
        "click",
    },
    "sandbox.neonize_library": {"trio", "structlog", "msgspec", "neonize", "click"},
    "sandbox.state": {"socket", "ssl", "structlog", "msgspec", "neonize", "click"},
    "sandbox.phones": {"socket", "ssl", "sqlite3", "structlog", "msgspec", "neonize", "click"},
    "sandbox.server": {"structlog", "msgspec", "neonize", "click"},
    "confinement": {"trio", "structlog", "msgspec", "msgpack", "neonize", "click"},
    # What is in SQLite is for `store.sqlite` to know.
    **{room: {"sqlite3"} for room in ("store", "sessions", "handlers", "monitoring", "limits")},
    "manual": {"trio", "structlog", "msgspec", "msgpack", "neonize"},
    "ctl": {"trio", "structlog", "msgspec", "neonize", "cryptography"},
}
#: Only these may know neonize.
NEONIZE_ROOMS = {"engines.neonize.fork", "engines.neonize.worker"}


def modules() -> list[Path]:
    return [*(ROOT / "whatsappd").rglob("*.py"), *(ROOT / "whatsappctl").rglob("*.py")]


def room_of(module: str) -> str:
    """The room of a dotted module name: `whatsappd.rpc.server` is in `rpc`.

    A package that has a rule of its own is a room of its own.
    """
    parts = module.split(".")
    if parts[0] == "whatsappctl":
        return "ctl"
    for length in range(len(parts), 2, -1):
        if (inner := ".".join(parts[1:length])) in ALLOWED:
            return inner
    return parts[1] if len(parts) > 1 else ""


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, for_types: bool = False) -> set[str]:
    """Everything a module imports at run time, inside functions too; `for_types`: and for mypy."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only and not for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            assert node.module
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    name = dotted(path)
    room = room_of(name)
    if name.startswith("whatsappd") and room in MEETING_PLACES:
        return
    allowed = ALLOWED[room]
    for imported in imports_of(path):
        if imported.split(".")[0] not in ("whatsappd", "whatsappctl"):
            continue
        target = room_of(imported)
        if imported == "whatsappd.__version__":
            target = ""
        if target == room:
            continue
        exact = imported.removeprefix("whatsappd.")
        # A rule with a dot names a part of a room; a room's name does not cover rooms inside it.
        parts = [entry for entry in allowed if "." in entry]
        assert target in allowed or any(f"{exact}.".startswith(f"{part}.") for part in parts), (
            f"{name} ({room}) must not import {imported}"
        )


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_uses_only_libraries_that_suit_its_room(path: Path) -> None:
    room = room_of(dotted(path))
    libraries = {imported.split(".")[0] for imported in imports_of(path)}
    forbidden = libraries & FORBIDDEN_LIBRARIES.get(room, set())
    assert not forbidden, f"{dotted(path)} must not import {forbidden}"
    if "neonize" in libraries:
        assert room in NEONIZE_ROOMS


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither at run time, nor inside functions, nor for type checkers."""
    names = {dotted(path): path for path in modules()}

    def module_of(imported: str) -> str:
        while imported and imported not in names:
            imported = imported.rpartition(".")[0]
        return imported

    imports: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = {module_of(imported) for imported in imports_of(path, for_types=True)}
        imports[name] = targets - {name, ""}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def test_every_room_has_a_rule() -> None:
    rooms = {room_of(dotted(path)) for path in modules()}
    assert rooms - MEETING_PLACES <= set(ALLOWED)


@pytest.mark.parametrize(
    ("entry", "forbidden"),
    [
        (
            "whatsappctl.cli",
            ["trio", "structlog", "msgspec", "neonize", "cryptography", "segno", "markdown_it"],
        ),
        ("whatsappctl.commands.send", ["trio", "msgspec", "whatsappd.model.content"]),
        (
            "whatsappd.app",
            [
                "whatsappd.store.memory",
                "neonize",
                "prometheus_client",
                "whatsappd.engines.neonize.worker",
                "google.protobuf",
            ],
        ),
    ],
)
def test_what_an_entry_point_never_loads(entry: str, forbidden: list[str]) -> None:
    program = f"import sys, {entry}\nprint([name for name in {forbidden!r} if name in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    assert printed.stdout.strip() == "[]"


def test_the_top_level_holds_only_what_it_may() -> None:
    allowed = {"pyproject.toml", "whatsappd", "whatsappctl", "tests", "systemd", "README.md"}
    listed = subprocess.run(
        ["git", "ls-files", "--cached"], check=True, capture_output=True, text=True, cwd=ROOT
    )
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_a_class_name_stands_once_in_the_tree() -> None:
    """One word, one meaning: whoever looks for a class finds one."""
    places: dict[str, set[str]] = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(dotted(path))
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
