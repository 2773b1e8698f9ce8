"""The lines of a batch: one JSON object each, checked before any of them is sent.

For `send --batch`. A batch may be longer than memory: it is read twice, once to check it and once
to send it, and what cannot be read twice (a pipe) is copied to a temporary file first.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from typing import IO, Any, NamedTuple

from whatsappd.errors import InvalidParams
from whatsappd.model.company import validate_company
from whatsappd.model.jid import parse_recipient

#: As in `whatsappd.api`, which a client cannot import: characters of a text, and of a key.
MAX_TEXT = 65_536
MAX_KEY = 200
MAX_TTL_MS = 10 * 366 * 24 * 3600 * 1000
#: Bytes of one line: a text of MAX_TEXT characters fits however JSON escapes them.
MAX_LINE = 1 << 20

FIELDS = ("company", "to", "text", "content", "key", "ttl", "on_uncertain")
ON_UNCERTAIN = ("ask", "resend")


class BatchDefaults(NamedTuple):
    """What holds for lines that do not say it themselves.

    `companies` are those that exist; `key_prefix` stands before every key, given or derived.
    """

    company: str | None
    ttl_ms: int | None
    on_uncertain: str | None
    key_prefix: str
    companies: frozenset[str]


class BatchLine(NamedTuple):
    """A line that can be sent: `arguments` are those of `message.send`."""

    number: int  # in the file, from 1
    chat: tuple[str, str]  # company and JID: messages of one chat keep their order
    arguments: dict[str, Any]


class BadBatchLine(NamedTuple):
    """A line that cannot be sent, and all that is wrong with it."""

    number: int
    problems: list[str]


@contextmanager
def rereadable(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """`file`, or a temporary copy of all that it will bring if it cannot be read twice.

    Raises:
        InvalidParams: it cannot be read, or there is no room for the copy.
    """
    if _is_regular(file):
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
        except OSError as error:
            raise InvalidParams(f"the batch cannot be read: {error.strerror}") from error
        yield copy


def _is_regular(file: IO[bytes]) -> bool:
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except OSError:  # no real file, such as a test's
        return False


def lines(
    file: IO[bytes], defaults: BatchDefaults
) -> Generator[BatchLine | BadBatchLine, None, None]:
    """The lines from where `file` stands, in order; empty ones are left out."""
    number = 0
    with closing(Occurrences()) as seen:
        while raw := file.readline(MAX_LINE + 1):
            number += 1
            if len(raw) > MAX_LINE:
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(MAX_LINE)
                yield BadBatchLine(number, [f"the line exceeds {MAX_LINE} bytes"])
                continue
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if raw.strip():
                yield _line(number, raw, defaults, seen)


class Occurrences:
    """How often each content came before, on disk, so that a batch of any length fits."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # temporary and unnamed
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute(
            "CREATE TABLE seen (content BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID"
        )
        # Never ended, because nothing of it is to be kept.
        self._database.execute("BEGIN")

    def close(self) -> None:
        self._database.close()

    def count(self, content: bytes) -> int:
        """1 for the first line with this content, 2 for the second, …"""
        [times] = self._database.execute(
            "INSERT INTO seen VALUES (?, 1)"
            " ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times",
            (content,),
        ).fetchone()
        return int(times)


def _line(
    number: int, raw: bytes, defaults: BatchDefaults, seen: Occurrences
) -> BatchLine | BadBatchLine:
    try:
        given = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return BadBatchLine(number, [_no_utf8(raw, error)])
    except (ValueError, RecursionError) as error:
        return BadBatchLine(number, [f"no JSON: {error}"])
    if not isinstance(given, dict):
        return BadBatchLine(
            number, ['no JSON object, such as {"to": "+15550100", "text": "Hello"}']
        )
    problems = [
        f"{name!r:.80}: there is no such field (accepted: {', '.join(FIELDS)})"
        for name in given
        if name not in FIELDS
    ]
    company = _company(given, defaults, problems)
    chat = _chat(given, problems)
    said = _said(given, problems)
    key = given.get("key")
    if key is not None and not _is_text(key, MAX_KEY - len(defaults.key_prefix)):
        problems.append(f"key: must be a string of 1 to {MAX_KEY} characters with its prefix")
    arguments = {"company": company, "to": chat, **said}
    arguments.update(_choices(given, defaults, problems))
    if problems:
        return BadBatchLine(number, problems)
    if key is None:
        key = _derived_key(company, chat, said, seen)
    arguments["key"] = defaults.key_prefix + key
    return BatchLine(number, (company, chat), arguments)


def _no_utf8(raw: bytes, error: UnicodeDecodeError) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "no UTF-8 text but UTF-16: save the file as UTF-8"
    return f"no UTF-8 text: byte 0x{raw[error.start]:02x} at its byte {error.start + 1}"


def _company(given: dict[str, Any], defaults: BatchDefaults, problems: list[str]) -> str:
    company = given.get("company", defaults.company)
    if company is None:
        problems.append("company: is missing; give it in the line, or once on the command line")
        return ""
    try:
        validate_company(company)
    except InvalidParams as error:
        problems.append(error.message)
        return ""
    if company not in defaults.companies:
        problems.append(f"company: there is no {company}; `whatsappctl start {company}` makes it")
    return str(company)


def _chat(given: dict[str, Any], problems: list[str]) -> str:
    to = given.get("to")
    if not isinstance(to, str):
        problems.append("to: must be a string: a phone number (+15550100) or a JID")
        return ""
    try:
        return str(parse_recipient(to))
    except InvalidParams as error:
        problems.append(error.message)
        return ""


def _said(given: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """`text` or `content` as `message.send` takes it."""
    text, content = given.get("text"), given.get("content")
    if content is None:
        if not _is_text(text, MAX_TEXT):
            problems.append(f"text: must be a string of 1 to {MAX_TEXT} characters")
        return {"text": text}
    if text is not None:
        problems.append("text, content: give one of the two; text is short for kind text")
        return {}
    # Here, because it takes longer to import than a batch of texts to be checked.
    from whatsappd.model.content import sendable_from

    try:
        return {"content": sendable_from(content).as_wire()}
    except InvalidParams as error:
        problems.append(error.message)
        return {}


def _choices(
    given: dict[str, Any], defaults: BatchDefaults, problems: list[str]
) -> Iterator[tuple[str, Any]]:
    ttl_ms = defaults.ttl_ms
    if (ttl := given.get("ttl")) is not None:
        ttl_ms = 0
        # The comparison is false for what JSON calls NaN, too.
        if isinstance(ttl, (int, float)) and ttl is not True and 0 < ttl * 1000 <= MAX_TTL_MS:
            ttl_ms = max(1, int(ttl * 1000))
        else:
            problems.append("ttl: must be a number of seconds, above 0 and at most ten years")
    if ttl_ms is not None:
        yield "ttl_ms", ttl_ms
    on_uncertain = given.get("on_uncertain", defaults.on_uncertain)
    if on_uncertain is not None:
        if on_uncertain not in ON_UNCERTAIN:
            problems.append(f"on_uncertain: must be one of {', '.join(ON_UNCERTAIN)}")
        yield "on_uncertain", on_uncertain


def _is_text(value: Any, longest: int) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return False
    return True


def _derived_key(company: str, chat: str, said: dict[str, Any], seen: Occurrences) -> str:
    """The same for the same content, so that running a file again sends nothing twice.

    A text has one key, in whatever form it is given.

    Not of the line's number or the file's name: lines may be mended, moved and added in between.
    The second of two equal lines is a message of its own.
    """
    what = said.get("text") or said["content"]
    if isinstance(what, dict) and what["kind"] == "text":
        what = what["text"]
    content = sha256(json.dumps([company, chat, what], sort_keys=True).encode()).digest()
    times = seen.count(content)
    return f"batch-{content.hex()[:40]}" + (f"-{times}" if times > 1 else "")
