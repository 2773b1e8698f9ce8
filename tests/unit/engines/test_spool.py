"""The worker's unconfirmed events: numbered, confirmed, and left to the next worker."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from message_shapes import OLDER_MESSAGE, saying
from neonize_protos import e2e

from whatsappd.engines.neonize.worker.spool import Spool
from whatsappd.engines.protocol import EventKind, EventOnWire, parse_event
from whatsappd.model.content import MAX_TEXT
from whatsappd.wire.frames import MessagePackReader
from whatsappd.wire.rpc import Notification, named_arguments, pack_notification, parse_message
from whatsappd.wire.shortening import MAX_EVENT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inbox.spool"


def event(text: str, **data: Any) -> EventOnWire:
    return EventOnWire("acme", EventKind.MESSAGE, saying(text, **data))


def unpacked(packed: bytes) -> EventOnWire:
    reader = MessagePackReader()
    [value] = [
        value
        for start in range(0, len(packed), 65536)
        for value in reader.feed(packed[start : start + 65536])
    ]
    message = parse_message(value)
    assert isinstance(message, Notification)
    return parse_event(named_arguments(message.params))


def waiting(spool: Spool) -> list[tuple[int | None, str]]:
    return [(found.number, found.data["content"]["text"]) for found in map(unpacked, spool.waiting)]


def test_numbers_go_on_behind_what_the_daemon_has(file: Path) -> None:
    spool = Spool(file, taken=41)
    assert unpacked(spool.add(event("a"))).number == 42
    assert unpacked(spool.add(event("b"))).number == 43


def test_what_is_confirmed_is_forgotten(file: Path) -> None:
    spool = Spool(file, taken=0)
    for text in "abc":
        spool.add(event(text))
    spool.confirmed(2)
    assert waiting(spool) == [(3, "c")]
    spool.save()
    assert waiting(Spool(file, taken=2)) == [(3, "c")]


def test_the_next_worker_leaves_out_what_the_daemon_turned_out_to_have(file: Path) -> None:
    spool = Spool(file, taken=0)
    for text in "abc":
        spool.add(event(text))
    spool.save()
    heir = Spool(file, taken=2)
    assert waiting(heir) == [(3, "c")]
    assert unpacked(heir.add(event("d"))).number == 4
    heir.save()
    assert waiting(Spool(file, taken=2)) == [(3, "c"), (4, "d")]


def test_what_is_added_survives_the_end_of_the_process_at_once(file: Path) -> None:
    """A worker that is killed, or whose Go panics, saves nothing: the file is there already."""
    spool = Spool(file, taken=0)
    for text in "abc":
        spool.add(event(text))
    assert waiting(Spool(file.rename(file.with_name("copy")), taken=1)) == [(2, "b"), (3, "c")]


def test_the_file_does_not_grow_with_what_is_confirmed(file: Path) -> None:
    spool = Spool(file, taken=0)
    for number in range(1, 3001):
        spool.add(event("x" * 1000))
        if number % 32 == 0:
            spool.confirmed(number - 1)  # one is always on its way
    assert file.stat().st_size < 3 * 1024 * 1024
    spool.confirmed(3000)
    assert file.stat().st_size == 0


def test_a_disk_that_is_full_costs_the_journal_and_no_event(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(file, taken=0)

    def refuse(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("whatsappd.engines.neonize.worker.spool.os.write", refuse)
        assert unpacked(spool.add(event("a"))).number == 1
        assert unpacked(spool.add(event("b"))).number == 2
    assert caplog.text.count("cannot be written") == 1
    spool.add(event("c"))
    assert waiting(Spool(file.rename(file.with_name("copy")), taken=0)) == [
        *((1, "a"), (2, "b"), (3, "c"))
    ]


def test_keys_that_an_older_version_left_are_not_brought(file: Path) -> None:
    share = e2e.Message()
    share.protocolMessage.appStateSyncKeyShare.keys.add().keyData.keyData = b"k" * 32
    old = [
        {**OLDER_MESSAGE, "text": "", "raw": share.SerializeToString()},
        {**OLDER_MESSAGE, "text": "b", "raw": b"\x0b no protobuf"},
    ]
    packed = [
        pack_notification(
            "event", EventOnWire("acme", EventKind.MESSAGE, data, number).as_arguments()
        )
        for number, data in enumerate(old, 1)
    ]
    file.write_bytes(b"".join(packed))
    spool = Spool(file, taken=0)
    assert waiting(spool) == [(2, "b")]
    assert b"k" * 32 not in file.read_bytes()


def test_the_longest_text_that_an_older_version_left_is_brought_whole(file: Path) -> None:
    text = "\U0001f600" * MAX_TEXT
    old = EventOnWire("acme", EventKind.MESSAGE, {**OLDER_MESSAGE, "text": text}, 1)
    file.write_bytes(pack_notification("event", old.as_arguments()))
    assert waiting(Spool(file, taken=0)) == [(1, text)]


def test_a_file_with_nothing_new_does_not_take_numbers_back(file: Path) -> None:
    spool = Spool(file, taken=0)
    spool.add(event("a"))
    spool.save()
    heir = Spool(file, taken=7)
    assert waiting(heir) == []
    assert unpacked(heir.add(event("b"))).number == 8
    heir.confirmed(8)
    heir.save()
    assert file.read_bytes() == b""


def test_a_damaged_file_is_reported_and_stops_nobody(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(file, taken=0)
    spool.add(event("a"))
    spool.save()
    file.write_bytes(file.read_bytes() + b"\xc1 no MessagePack")
    with caplog.at_level(logging.ERROR):
        heir = Spool(file, taken=0)
    assert "damaged" in caplog.text
    assert unpacked(heir.add(event("b"))).number is not None


def test_an_event_too_large_for_the_log_arrives_without_what_makes_it_so(file: Path) -> None:
    spool = Spool(file, taken=0)
    content = {"kind": "unsupported", "type": "image", "text": "x" * MAX_EVENT}
    packed = spool.add(event("", content={**content, "raw": b"y" * MAX_EVENT}, message_id="A"))
    assert len(packed) < MAX_EVENT
    found = unpacked(packed)
    assert found.data["shortened"] == {"content.text": MAX_EVENT, "content.raw": MAX_EVENT}
    assert found.data["message_id"] == "A"
    assert "raw" not in found.data["content"]


def test_what_stands_before_the_damage_is_kept_and_the_file_put_aside(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(file, taken=0)
    for text in "ab":
        spool.add(event(text))
    spool.save()
    damaged = file.read_bytes() + b"\xc1 no MessagePack"
    file.write_bytes(damaged)
    with caplog.at_level(logging.ERROR):
        heir = Spool(file, taken=0)
    assert waiting(heir) == [(1, "a"), (2, "b")]
    assert "2 events were read" in caplog.text
    assert file.with_name("inbox.spool.damaged").read_bytes() == damaged
    heir.save()
    assert waiting(Spool(file, taken=0)) == [(1, "a"), (2, "b")]


def test_an_event_that_is_none_takes_no_other_along(file: Path) -> None:
    spool = Spool(file, taken=0)
    for text in "ab":
        spool.add(event(text))
    first, second = spool.waiting
    file.write_bytes(first + pack_notification("event", {"company": 5}) + second)
    assert waiting(Spool(file, taken=0)) == [(1, "a"), (2, "b")]


def saved(file: Path, texts: str) -> list[bytes]:
    """A file with an event for each letter; the events, packed."""
    spool = Spool(file, taken=0)
    for text in texts:
        spool.add(event(text))
    spool.save()
    return spool.waiting


@pytest.mark.parametrize("missing", [1, 100])
def test_an_end_that_is_missing_is_damage(
    file: Path, caplog: pytest.LogCaptureFixture, missing: int
) -> None:
    saved(file, "ab")
    damaged = file.read_bytes()[:-missing]
    file.write_bytes(damaged)
    with caplog.at_level(logging.ERROR):
        heir = Spool(file, taken=0)
    assert waiting(heir) == [(1, "a")]
    assert "1 events were read" in caplog.text
    assert file.with_name("inbox.spool.damaged").read_bytes() == damaged


#: What an array, a map, a text or bytes with a length of four bytes begin with.
@pytest.mark.parametrize("byte", [0xDD, 0xDF, 0xDB, 0xC6, 0xC1])
def test_damage_takes_its_own_event_along_and_no_other(file: Path, byte: int) -> None:
    first, second, third = saved(file, "abc")
    aside = file.with_name("inbox.spool.damaged")
    for place in range(len(second)):
        damaged = second[:place] + bytes([byte]) + second[place + 1 :]
        file.write_bytes(first + damaged + third)
        found = waiting(Spool(file, taken=0))
        assert (found[0], found[-1]) == ((1, "a"), (3, "c")), place
        assert aside.exists(), place
        aside.unlink()


def test_damage_behind_much_else_is_found(file: Path) -> None:
    spool = Spool(file, taken=0)
    for number in range(9):
        spool.add(event("x" * 30_000 + str(number)))
    spool.save()
    packed = spool.waiting
    packed[4] = packed[4][:20_000] + b"\xc1" + packed[4][20_001:]
    packed[7] = packed[7][:20_000]
    file.write_bytes(b"".join(packed))
    assert [number for number, _ in waiting(Spool(file, taken=0))] == [1, 2, 3, 4, 6, 7, 9]
