"""What people, files and the environment bring: ids, addresses, settings, batches, spools."""

from __future__ import annotations

import io
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import hostile
import msgpack
import msgspec
from click.testing import CliRunner
from hypothesis import strategies as st
from structlog.testing import capture_logs
from targets import Target, refusing
from wire_targets import EVENTS, streams

from whatsappctl.batch_lines import BadBatchLine, BatchDefaults, BatchLine, lines
from whatsappctl.cli import SECTIONS, cli
from whatsappd.api.messages import SendMessage
from whatsappd.config.definitions import DEFINITIONS
from whatsappd.config.load import load
from whatsappd.config.quoting import quoted
from whatsappd.config.sources import Sources
from whatsappd.engines.neonize.worker.spool import Spool
from whatsappd.engines.protocol import EventKind, EventOnWire, parse_event
from whatsappd.errors import (
    EXIT_OK,
    EXIT_TIMED_OUT,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    BadConfiguration,
    BadStateDirectory,
    InvalidParams,
    SandboxFailed,
    TimedOut,
)
from whatsappd.model.company import validate_company
from whatsappd.model.event import MAX_EVENT_BYTES
from whatsappd.model.jid import parse_jid, parse_recipient, shortened
from whatsappd.rules.webhook_policy import validate_url
from whatsappd.sandbox.info_file import SandboxInfo, read_info
from whatsappd.state_directory import StateDirectory
from whatsappd.systemd import take_launch
from whatsappd.wire.frames import MessagePackReader
from whatsappd.wire.rpc import named_arguments, pack_request, parse_message


@cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """A directory of this process, removed at its end."""
    return tempfile.TemporaryDirectory(prefix="wf-")


def scratch_file(name: str, content: bytes) -> Path:
    file = Path(scratch().name) / name
    file.write_bytes(content)
    return file


# --- ids and addresses ------------------------------------------------------------------------


def check_company(value: Any) -> None:
    """Only what is one plain name in every path, URI and shell is a company's id."""
    with refusing(InvalidParams):
        company = validate_company(value)
        assert company == value
        assert 1 <= len(company) <= 50
        assert all(c.isascii() and (c.isalnum() or c in "_-") for c in company)
        state = StateDirectory(Path("/state"))
        assert state.company(company).parent == state.companies


def check_recipient(text: str) -> None:
    """What is accepted means the same in its canonical form, and is nothing but ASCII."""
    assert len(shortened(text)) <= len(text) + 1
    with refusing(InvalidParams):
        jid = parse_recipient(text)
        canonical = str(jid)
        assert canonical.isascii()
        assert canonical.isprintable()
        assert len(canonical) < 100
        assert parse_recipient(canonical) == parse_jid(canonical) == jid


def check_jid(text: str) -> None:
    try:
        jid = parse_jid(text)
    except ValueError as error:
        assert str(error)
    else:
        assert parse_jid(str(jid)) == jid
        assert 0 <= jid.device <= 0xFFFF


urls = st.one_of(
    hostile.texts,
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(("https", "http", "ftp", "HTTPS", "")),
        st.sampled_from(("h.example", "127.0.0.1", "[::1]", "[::", "a@b", "2130706433", "①")),
        st.sampled_from(("", ":0", ":99999", ":x", ":443")),
        hostile.texts,
    ),
)


def check_url(given: tuple[str, bool]) -> None:
    url, allow_private = given
    with refusing(InvalidParams):
        assert validate_url(url, allow_private=allow_private) == url
        assert url.isascii()


# --- configuration ----------------------------------------------------------------------------

toml_scalars = st.one_of(
    st.text(max_size=20).map(quoted),
    st.sampled_from(hostile.ADDRESSES + hostile.IDS).map(quoted),
    hostile.integers.map(str),
    st.floats().map(str),
    st.sampled_from(
        (
            *("true", "[]", "{}", "nan", "-inf", "1979-05-27", "07:32:00", "1e400", "'~x/y'"),
            *('"30s"', '"1h30m"', '"1GiB"', '"0660"', '"redis://x"', '"١s"', '"\\u0000"', '"json"'),
            *("9" * 5000, "0x" + "f" * 5000, "[" * 2000, '"' + "9" * 18 + 'd"', "1e308", "-0"),
        )
    ),
)
rules = st.dictionaries(
    st.sampled_from(("user", "group", "companies", "read_only", "other")),
    toml_scalars | hostile.ids.map(lambda text: f"[{quoted(text)}]"),
    max_size=3,
).map(lambda rule: "[[access]]\n" + "".join(f"{key} = {value}\n" for key, value in rule.items()))
settings = st.dictionaries(
    st.sampled_from([*DEFINITIONS, "limits", "access", "unknown", "limits.unknown"]),
    toml_scalars,
    max_size=4,
).map(lambda given: "".join(f"{key} = {value}\n" for key, value in given.items()))
files = hostile.damaged(
    st.tuples(settings, st.lists(rules, max_size=2).map("".join)).map(
        lambda parts: "".join(parts).encode(errors="surrogatepass")
    )
)


def check_configuration(content: bytes) -> None:
    """The settings, or all problems at once: each with its key and what to do."""
    file = scratch_file("whatsappd.toml", content)
    _load(Sources(environment={}, config=file))


given_texts = st.one_of(
    hostile.arguments,
    st.sampled_from(
        ("30s", "1h 30m", "1e5", "nan", "-1", "+5", "٣", "0x10", "9" * 20, "5 MB", "info", "0777")
    ),
)
variables = st.dictionaries(
    st.sampled_from([definition.variable for definition in DEFINITIONS.values()]), given_texts
)
options = st.dictionaries(
    st.sampled_from(list(DEFINITIONS)) | hostile.arguments,
    st.tuples(st.just("--set"), given_texts),
    max_size=3,
)


def check_given(given: tuple[dict[str, str], dict[str, tuple[str, str]]]) -> None:
    """As a file, so the environment and the command line."""
    environment, arguments = given
    file = scratch_file("empty.toml", b"")
    _load(Sources(environment=environment, arguments=arguments, config=file))


def _load(sources: Sources) -> None:
    try:
        configuration = load(sources)
    except BadConfiguration as error:
        problems = error.data["problems"]
        assert problems
        for problem in problems:
            assert len(problem["message"]) < 1000
            assert problem["origin"]
    else:
        for definition in DEFINITIONS.values():
            kind = definition.format
            value = definition.of(configuration.settings)
            assert kind.as_toml(value)


# --- batches ----------------------------------------------------------------------------------

KNOWN = BatchDefaults("acme", None, None, "", frozenset({"acme"}))
objects = st.fixed_dictionaries(
    {},
    optional={
        "company": st.sampled_from(("acme", "globex")) | hostile.json_values,
        "to": st.just("+15550100") | hostile.addresses | hostile.json_values,
        "text": st.just("Hello") | hostile.json_values,
        "key": st.none() | hostile.torn_texts | hostile.json_values,
        "ttl": st.sampled_from((60, 0.0001, -1, 1e-300, 10**4000)) | hostile.json_values,
        "on_uncertain": st.sampled_from(("ask", "resend", ["ask"], {})) | hostile.json_values,
        "unknown": hostile.json_values,
    },
)


def _json_line(value: Any) -> bytes:
    try:
        return json.dumps(value).encode() + b"\n"
    except ValueError:  # a number with more digits than Python writes
        return b'{"ttl": ' + b"9" * 5000 + b"}\n"


batches = hostile.damaged(
    st.lists(
        objects.map(_json_line) | st.sampled_from((b"\r\n", b"[" * 5000, b"\xef\xbb\xbf{}\n")),
        max_size=4,
    ).map(b"".join)
)


def check_batch(content: bytes) -> None:
    """Every line is bad, with a reason for each mistake, or one that the daemon accepts."""
    numbers = []
    for line in lines(io.BytesIO(content), KNOWN):
        numbers.append(line.number)
        if isinstance(line, BadBatchLine):
            assert line.problems
            assert all(0 < len(problem) <= 2000 for problem in line.problems)
            continue
        assert isinstance(line, BatchLine)
        [value] = MessagePackReader().feed(pack_request(1, "message.send", line.arguments))
        sent = msgspec.convert(named_arguments(parse_message(value).params), SendMessage)
        assert str(parse_recipient(sent.to)) == sent.to
        assert sent.key
    assert numbers == sorted(set(numbers))


# --- what processes leave for each other ------------------------------------------------------


def _spooled(number: int) -> bytes:
    event = EventOnWire("acme", EventKind.MESSAGE, EVENTS[EventKind.MESSAGE], number)
    return msgpack.packb([2, "event", [event.as_arguments()]])


spooled = (
    st.lists(st.integers(1, 2**33), max_size=5)
    .map(sorted)
    .map(lambda numbers: b"".join(map(_spooled, numbers)))
)
spools = st.one_of(
    hostile.damaged(spooled),
    streams,
    st.lists(hostile.values, max_size=3).map(
        lambda values: b"".join(msgpack.packb([2, "event", [value]]) for value in values)
    ),
)


def check_spool(content: bytes) -> None:
    """What can be read is kept, in order; what cannot stops no worker, and new events follow."""
    file = scratch_file("inbox.spool", content)
    spool = Spool(file, taken=2)
    numbers = [_number(packed) for packed in spool.waiting]
    assert numbers == sorted(set(numbers))
    assert all(2 < number < 2**63 for number in numbers)
    added = _number(spool.add(EventOnWire("acme", EventKind.MESSAGE, EVENTS[EventKind.MESSAGE])))
    assert added > max([2, *numbers])
    spool.save()
    again = Spool(file, taken=2)
    assert [_number(packed) for packed in again.waiting] == [*numbers, added]


def _number(packed: bytes) -> int:
    assert len(packed) <= MAX_EVENT_BYTES
    [value] = MessagePackReader().feed(packed)
    number = parse_event(named_arguments(parse_message(value).params)).number
    assert number is not None
    return number


INFO = SandboxInfo("127.0.0.1", 5222, "/s/ca.pem", "00" * 32).as_wire()
infos = hostile.damaged(
    st.one_of(
        st.just(INFO),
        st.fixed_dictionaries({}, optional=dict.fromkeys(INFO, hostile.json_values)),
        st.sampled_from(list(INFO)).flatmap(
            lambda name: hostile.json_values.map(lambda value: {**INFO, name: value})
        ),
        st.sampled_from(list(INFO)).map(
            lambda name: {key: value for key, value in INFO.items() if key != name}
        ),
    ).map(_json_line)
)


def check_info(content: bytes) -> None:
    with refusing(SandboxFailed):
        info = read_info(scratch_file("info.json", content))
        assert len(info.noise_root_bytes) == 32
        assert type(info.port) is int
        assert info.proxy.isprintable()


# --- systemd ----------------------------------------------------------------------------------

OWN = str(os.getpid())
numbers = st.sampled_from(
    ("0", "1", "2", "-1", "30000000", "x", "1e6", "٣", " 5", "1_0", "9" * 400, "0x10", "99999")
) | st.text(max_size=5)
environments = st.fixed_dictionaries(
    {},
    optional={
        "WATCHDOG_USEC": numbers,
        "WATCHDOG_PID": st.sampled_from((OWN, "1", "")) | numbers,
        "LISTEN_PID": st.sampled_from((OWN, "1", "")) | numbers,
        # Not 1: descriptor 3 is somebody else's here.
        "LISTEN_FDS": numbers.filter(lambda text: text.strip() != "1"),
        "NOTIFY_SOCKET": st.sampled_from(("@", "/", "/nowhere", "@x", "a" * 200, "vsock:2:1")),
    },
)


def check_launch(environment: dict[str, str]) -> None:
    """What systemd never says is told from what it says, and nothing of it is left to children."""
    given = dict(environment)
    with refusing(BadStateDirectory):
        launch = take_launch(given)
        assert launch.watchdog_s is None or 0 < launch.watchdog_s < 1e9
        assert launch.socket is None
        with capture_logs():
            launch.notify.status("a\nb\udcff")
    assert given == {}


# --- the command line -------------------------------------------------------------------------

VERBS = [verb for verbs in SECTIONS.values() for verb in verbs]
#: Nothing that reads what the terminal types, or writes files where a test runs.
OPTIONS = (
    *("--timeout", "--ttl", "--key", "--wait", "--after", "--count", "--for", "--json", "--limit"),
    *("--per-minute", "--cold-per-day", "--company", "--type", "--state", "--phone", "--device"),
    *("--no-follow", "--consumer", "--help", "--", "-", "--as", "--scope", "--url", "-x", "--qr"),
    *("create", "list", "cancel", "resolve", "show", "fault", "scan", "unlink", "revoke", "dead"),
)
words = st.one_of(
    st.sampled_from(OPTIONS),
    st.sampled_from(("nan", "inf", "-inf", "1e300", "-1", "0", "9" * 30, "1e-320", "٣", "acme")),
    st.sampled_from(("{}", "[", "[" * 5000, '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", "{'a'}")),
    st.sampled_from(("+15550100", "seconds=nan", "seconds=", "=", "a=1", '{"a": "\\ud800"}')),
    hostile.arguments,
)
command_lines = st.tuples(st.sampled_from(VERBS), st.lists(words, max_size=6)).map(
    lambda parts: [parts[0], *parts[1]]
)


def _lose_patience(_seconds: float) -> None:
    """`wait` without a company waits for a daemon, for ever by default; here none will come."""
    raise TimedOut("no daemon came")


def check_command_line(arguments: list[str]) -> None:
    """Whatever is typed, the command ends with one of its exit codes and a reason, no traceback."""
    nowhere = str(Path(scratch().name) / "nobody.sock")
    with patch("whatsappctl.commands.wait.sleep", _lose_patience):
        result = CliRunner(env={"WHATSAPPD_SOCKET": nowhere}).invoke(
            cli, ["--socket", nowhere, *arguments], input="a text\n", catch_exceptions=False
        )
    ends = (EXIT_OK, 1, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_TIMED_OUT)
    assert result.exit_code in ends, result.output
    assert result.exit_code == EXIT_OK or result.output.strip()
    assert isinstance(result.exception, SystemExit | click.ClickException | None)


TARGETS = [
    Target("company ids", hostile.ids | hostile.values, check_company),
    Target("recipients", hostile.addresses | hostile.torn_texts, check_recipient),
    Target("JIDs", hostile.addresses | hostile.torn_texts, check_jid),
    Target("webhooks' URLs", st.tuples(urls, st.booleans()), check_url),
    Target(
        "configuration files",
        files,
        check_configuration,
        (b'log_level = "info"\n[limits]\nredis_url = "redis://x"\n[[access]]\nuser = "root"\n',),
    ),
    Target("configuration given", st.tuples(variables, options), check_given),
    Target(
        "batches",
        batches,
        check_batch,
        (b'{"to": "+15550100", "text": "a", "ttl": 5, "key": "k", "on_uncertain": "ask"}\n{}\n',),
    ),
    Target("spool files", spools, check_spool, (_spooled(3) + _spooled(4),)),
    Target("info files", infos, check_info, (_json_line(INFO),)),
    Target("systemd's environment", environments, check_launch),
    Target("command lines", command_lines, check_command_line),
]
