"""The public blocking client."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import msgpack
import pytest
from scripted_daemon import Daemon, event, session

from whatsappctl import Client
from whatsappd.errors import (
    InvalidParams,
    NotConnected,
    Stopping,
    TimedOut,
    UnknownMethod,
    Unreachable,
)


def test_a_call_and_its_answer(daemon: Daemon):
    daemon.answers = {"daemon.hello": {"name": "whatsappd"}}

    def body():
        with Client(daemon.path) as client:
            return client.hello(), client.call("daemon.hello")

    assert daemon.run(body) == ({"name": "whatsappd"},) * 2


def test_errors_arrive_as_their_classes_with_their_data(daemon: Daemon):
    daemon.answers = {"session.status": NotConnected("acme is not connected", company="acme")}

    def body():
        with Client(daemon.path) as client:
            with pytest.raises(NotConnected, match="acme is not") as caught:
                client.status("acme")
            assert caught.value.data == {"company": "acme"}
            with pytest.raises(InvalidParams, match="company: is missing"):
                client.call("session.status")
            with pytest.raises(UnknownMethod, match=r"did you mean session\.status"):
                client.call("session.statsu")

    daemon.run(body)


def test_arguments_that_are_none_are_left_out(daemon: Daemon):
    daemon.answers = {"message.send": {"id": "1", "state": "queued"}}

    def body():
        with Client(daemon.path) as client:
            client.send("acme", "+15550100", "hi")

    daemon.run(body)
    [params] = daemon.called("message.send")
    assert (params.company, params.to, params.text, params.key) == ("acme", "+15550100", "hi", None)


def test_nobody_there(tmp_path: Path):
    with pytest.raises(Unreachable, match=r"is not running at .*No such file.*whatsappd run"):
        Client(str(tmp_path / "none.sock")).hello()
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    with pytest.raises(Unreachable, match="Connection refused"):
        Client(str(stale)).hello()


def test_the_environment_names_the_socket(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WHATSAPPD_SOCKET", "/run/elsewhere.sock")
    assert Client().path == "/run/elsewhere.sock"


def answering(path: str, *replies: bytes) -> threading.Thread:
    """A peer that answers each read with the next of `replies`, then hangs up."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()

    def serve() -> None:
        with listening, listening.accept()[0] as sock:
            for reply in replies:
                sock.recv(65536)
                sock.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_deadline_passes_and_the_late_answer_is_not_taken_for_the_next(tmp_path: Path):
    path = str(tmp_path / "s")
    late = msgpack.packb([1, 1, None, "late"])
    thread = answering(path, b"", late + msgpack.packb([1, 2, None, "right"]))
    with Client(path) as client:
        with pytest.raises(TimedOut, match=r"no answer within 0\.05 s"):
            client.call("m.n", deadline=0.05)
        assert client.call("m.n", deadline=5) == "right"
    thread.join()


def test_a_lost_connection_is_unreachable_and_the_next_call_connects_anew(tmp_path: Path):
    path = str(tmp_path / "s")
    thread = answering(path, b"")
    client = Client(path)
    with pytest.raises(Unreachable, match=r"closed the connection|is lost"):
        client.call("m.n")
    thread.join()
    Path(path).unlink()
    thread = answering(path, msgpack.packb([1, 1, None, "again"]))
    assert client.call("m.n") == "again"
    client.close()
    thread.join()


def test_the_daemons_last_word_is_the_error(tmp_path: Path):
    path = str(tmp_path / "s")
    thread = answering(path, msgpack.packb([2, "error", [Stopping("the daemon stops").as_wire()]]))
    with pytest.raises(Stopping, match="the daemon stops"):
        Client(path).call("m.n")
    thread.join()


@pytest.mark.parametrize("garbage", [b"\xc1", msgpack.packb(5), msgpack.packb([0, 1, "m", []])])
def test_garbage_from_the_other_end_is_an_error(tmp_path: Path, garbage: bytes):
    path = str(tmp_path / "s")
    thread = answering(path, garbage)
    with pytest.raises(Exception, match=r"MessagePack|message must|a request"):
        Client(path).call("m.n")
    thread.join()


def test_events_replay_filter_and_gap(daemon: Daemon):
    daemon.answers = {
        "events.subscribe": {"subscription": 4, "after": 0, "last_seq": 9, "gap": 3},
        "events.ack": {"cursor": 5},
    }
    daemon.events = [event(3, "message.received", text="a"), {"gap": 5}, event(5)]

    def body():
        with Client(daemon.path).events(
            after=0, companies=["acme"], types=["message.received"], consumer="crm"
        ) as events:
            assert (events.after, events.last_seq, events.gap) == (0, 9, 3)
            first = next(events)
            assert (first.seq, first.company, first.data) == (3, "acme", {"text": "a"})
            assert (next(events).seq, events.gap) == (5, 5)
            events.ack(5)
            with pytest.raises(TimedOut):
                events.next(deadline=0.01)

    daemon.run(body)
    [asked] = daemon.called("events.subscribe")
    assert (asked.after, asked.companies, asked.consumer) == (0, ["acme"], "crm")
    assert daemon.called("events.ack")[0].seq == 5


def test_waiting_for_a_state(daemon: Daemon):
    daemon.answers = {
        "events.subscribe": {"subscription": 1, "after": 0, "last_seq": 0, "gap": None},
        "session.status": [session(state="connecting"), session(state="connected")],
    }
    daemon.events = [event(1, state="connected")]

    def body():
        with Client(daemon.path) as client:
            return client.wait("acme")

    assert daemon.run(body)["state"] == "connected"


def test_waiting_in_vain_says_how_it_stands(daemon: Daemon):
    daemon.answers = {
        "events.subscribe": {"subscription": 1, "after": 0, "last_seq": 0, "gap": None},
        "session.status": session(state="backing_off", cause="no such host"),
    }

    def body():
        with Client(daemon.path) as client:
            client.wait("acme", deadline=0.05)

    with pytest.raises(TimedOut, match=r"connected after 0\.05 s, but backing_off: no such host"):
        daemon.run(body)
