"""Access rules through a real socket: callers that really are other users of the host."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trio
from daemons import PATIENCE, Daemon, following, link, running_daemon

from whatsappd.errors import EXIT_DENIED

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can start processes as other users"
)

#: Uids and gids that exist on no host; nothing but numbers is needed.
SHOP, WATCHER, STRANGER, MEMBER, STAFF = 54_001, 54_002, 54_003, 54_004, 54_100

RULES = f"""
    [[access]]
    user = {SHOP}
    companies = ["acme"]
    [[access]]
    user = {WATCHER}
    read_only = true
    [[access]]
    group = {STAFF}
    companies = ["globex"]
    read_only = true
"""

#: Becomes another user, then makes calls: [method, {arguments}] each; prints results or errors.
CALLER = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
uid, groups, calls = json.loads(sys.argv[3])
from whatsappctl import Client
import whatsappctl.client, whatsappctl.event_stream, whatsappd.errors
client = Client(sys.argv[2])
os.setgroups(groups)
os.setgid(uid)
os.setuid(uid)
for method, arguments in calls:
    try:
        print(json.dumps(["ok", client.call(method, **arguments)]), flush=True)
    except whatsappd.errors.WhatsappdError as error:
        print(json.dumps([error.name, error.message]), flush=True)
"""


async def call_as(
    daemon: Daemon, uid: int, *calls: tuple[str, dict[str, Any]], groups: tuple[int, ...] = ()
) -> list[list[Any]]:
    """What a process of that user is answered, one [outcome, result or message] per call."""
    run = await trio.run_process(
        [
            *(sys.executable, "-c", CALLER, json.dumps(sys.path), str(daemon.socket)),
            json.dumps([uid, groups, calls]),
        ],
        capture_stdout=True,
        cwd="/",
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture
async def daemon(tmp_path: Path) -> Any:
    config = tmp_path / "whatsappd.toml"
    config.write_text('socket_mode = "0666"\n' + textwrap.dedent(RULES))
    async with running_daemon("--sandbox", "--config", str(config)) as daemon:
        # The directory is pytest's; other users must be able to reach the socket in it.
        daemon.directory.chmod(0o711)
        yield daemon


async def reload(daemon: Daemon, rules: str) -> None:
    config = Path(daemon.arguments[-1])
    before = daemon.log().count("configuration_reloaded")
    config.write_text('socket_mode = "0666"\n' + textwrap.dedent(rules))
    os.kill(daemon.pid, signal.SIGHUP)
    with trio.fail_after(PATIENCE):
        while daemon.log().count("configuration_reloaded") == before:
            await trio.sleep(0.01)


async def line_of(process: trio.Process) -> str:
    """What a process prints, up to the end of a line."""
    assert process.stdout
    printed = b""
    with trio.fail_after(PATIENCE):
        while not printed.endswith(b"\n"):
            printed += (more := await process.stdout.receive_some())
            assert more, f"it ended after {printed!r}"
    return printed.decode().rstrip()


async def two_companies(daemon: Daemon) -> dict[str, Any]:
    """Both linked, and a message from each to the other; the ids of the messages."""
    async with daemon.client() as client, following(client) as events:
        await link(client, events, "acme", "+15550100")
        await link(client, events, "globex", "+15550200")
        sent = {}
        for company, to in (("acme", "+15550200"), ("globex", "+15550100")):
            row = await client.call("message.send", company=company, to=to, text="x", wait="sent")
            sent[company] = row["id"]
        return sent


async def test_a_user_bound_to_a_company_sees_and_does_what_is_its_own(daemon: Daemon) -> None:
    sent = await two_companies(daemon)
    async with daemon.client() as client:
        await client.call("events.subscribe", consumer="roots-own")
        made = await client.call(
            "webhook.create", url="https://globex.example/", companies=["globex"]
        )
    answers = await call_as(
        daemon,
        SHOP,
        ("daemon.metrics", {}),
        ("daemon.health", {}),
        ("daemon.hello", {}),
        ("daemon.status", {}),
        ("daemon.limits", {}),
        ("session.list", {}),
        ("session.status", {"company": "acme"}),
        ("message.get", {"id": sent["acme"]}),
        ("message.list", {}),
        ("message.send", {"company": "acme", "to": "+15550200", "text": "mine"}),
        ("events.read", {"limit": 500}),
        ("session.restart", {"company": "acme"}),
    )
    assert [outcome for outcome, _ in answers] == ["ok"] * len(answers), answers
    figures, health, _, status, limits, listed, _, _, messages, _, events, _ = [
        result for _, result in answers
    ]
    for hidden in ("globex", "roots-own", made["id"]):
        assert hidden not in figures["text"]
        assert hidden not in str(health)
    assert [each["company"] for each in status["companies"]] == ["acme"]
    assert (status["state_dir"], status["fork_server"]) == (None, None)
    bounds = {each["name"]: each for each in limits["bounds"]}
    assert bounds["connections"]["holders"] == [{"holder": f"uid:{SHOP}", "held": 1}]
    assert [each["company"] for each in listed["sessions"]] == ["acme"]
    assert {row["company"] for row in messages["rows"]} == {"acme"}
    assert {event["company"] for event in events["events"]} == {"acme"}


async def test_and_nothing_that_is_others(daemon: Daemon) -> None:
    sent = await two_companies(daemon)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("session.status", {"company": "globex"}),
        ("session.start", {"company": "globex"}),
        ("session.start", {"company": "initech"}),
        ("session.qr", {"company": "globex"}),
        ("message.send", {"company": "globex", "to": "+15550100", "text": "x"}),
        ("message.list", {"company": "globex"}),
        ("events.read", {"companies": ["acme", "globex"]}),
        ("events.subscribe", {"companies": ["globex"]}),
        ("session.remove", {"company": "globex", "force": True}),
        # What concerns everybody.
        ("sandbox.fault", {"kind": "refuse_dials"}),
        ("key.list", {}),
        ("daemon.audit", {}),
    ]
    answers = await call_as(daemon, SHOP, *calls)
    for (method, arguments), (outcome, message) in zip(calls, answers, strict=True):
        assert outcome == "denied", (method, message)
        assert f"user = {SHOP}" in message
        if arguments.get("company") == "globex":
            assert 'companies = ["globex"]' in message
    # Whether others have a message is nothing to be learned by trying: it is not there.
    hidden, absent = sent["globex"], "0" * 16
    for method, more in [
        ("message.get", {}),
        ("message.wait", {}),
        ("message.cancel", {}),
        ("message.resolve", {"as": "sent"}),
    ]:
        calls = [(method, {"id": each, **more}) for each in (hidden, absent)]
        found = await call_as(daemon, SHOP, *calls)
        assert [outcome for outcome, _ in found] == ["unknown_message"] * 2, method
        assert found[0][1].replace(hidden, absent) == found[1][1]
    async with daemon.client() as client:
        status = await client.call("session.status", company="globex")
        assert status["state"] == "connected"
        # But who tried is on record, with the company that it was about.
        with trio.fail_after(PATIENCE):
            while True:
                lines = (await client.call("daemon.audit", limit=1000))["lines"]
                tried = {
                    (each["method"], each["company"], each["outcome"])
                    for each in lines
                    if each["actor"] == f"uid:{SHOP}"
                }
                if ("message.cancel", "globex", "unknown_message") in tried:
                    break
                await trio.sleep(0.02)
        assert ("session.remove", "globex", "denied") in tried
        assert ("message.list", "globex", "denied") in tried
        assert ("key.list", None, "denied") in tried


async def test_a_reader_reads_everything_and_changes_nothing(daemon: Daemon) -> None:
    sent = await two_companies(daemon)
    reading = await call_as(
        daemon,
        WATCHER,
        ("daemon.status", {}),
        ("session.status", {"company": "globex"}),
        ("message.get", {"id": sent["globex"]}),
        ("message.list", {}),
        ("events.read", {}),
        ("events.subscribe", {"after": 0, "consumer": "watch"}),
        ("events.ack", {"consumer": "watch", "seq": 1}),
        ("events.forget", {"consumer": "watch"}),
        ("daemon.audit", {}),
    )
    assert [outcome for outcome, _ in reading] == ["ok"] * 9, reading
    writing = await call_as(
        daemon,
        WATCHER,
        ("session.start", {"company": "acme"}),
        ("message.send", {"company": "acme", "to": "+15550200", "text": "x"}),
        ("message.cancel", {"id": sent["acme"]}),
        ("session.remove", {"company": "acme", "force": True}),
        ("key.create", {"name": "x", "scope": "read"}),
    )
    assert [outcome for outcome, _ in writing] == ["denied"] * 5, writing
    assert "may only read" in writing[0][1]


async def test_who_may_only_read_is_told_that_a_code_is_shown_and_not_the_code(
    daemon: Daemon,
) -> None:
    async with daemon.client() as client, following(client) as events:
        await client.call("session.start", company="acme")
        code = (await events.of_type("acme", "session.qr"))["data"]["qr"]
        [mine] = await call_as(daemon, SHOP, ("session.qr", {"company": "acme"}))
        assert mine[0] == "ok"
        answers = await call_as(
            daemon,
            WATCHER,
            ("session.status", {"company": "acme"}),
            ("session.list", {}),
            ("daemon.status", {}),
            ("events.read", {}),
            ("session.qr", {"company": "acme"}),
            ("events.read", {"types": ["session.qr"]}),
        )
        assert [outcome for outcome, _ in answers] == ["ok"] * 4 + ["denied"] * 2
        status = answers[0][1]
        assert (status["qr"], status["qr_shown"], status["state"]) == (None, True, "pairing")
        assert "session.state" in str(answers[3])
        assert mine[1]["qr"] not in str(answers)
        assert code not in str(answers)
        with trio.fail_after(PATIENCE):
            while True:
                lines = (await client.call("daemon.audit", limit=1000))["lines"]
                looks = {
                    (each["actor"], each["method"], each["outcome"])
                    for each in lines
                    if each["company"] == "acme" and each["method"] != "session.start"
                }
                if len(looks) >= 3:
                    break
                await trio.sleep(0.02)
    assert looks == {
        ("uid:0", "events.subscribe", "ok"),
        (f"uid:{SHOP}", "session.qr", "ok"),
        (f"uid:{WATCHER}", "session.qr", "denied"),
    }


async def test_groups_are_those_of_the_calling_process(daemon: Daemon) -> None:
    calls = [("session.list", {}), ("message.list", {"company": "globex"})]
    assert [outcome for outcome, _ in await call_as(daemon, MEMBER, *calls, groups=(STAFF,))] == [
        "ok",
        "ok",
    ]
    refused = await call_as(daemon, MEMBER, *calls)
    assert [outcome for outcome, _ in refused] == ["denied", "denied"]
    assert f"no access rule names user {MEMBER}" in refused[0][1]


async def test_who_is_named_by_no_rule_learns_nothing(daemon: Daemon) -> None:
    answers = await call_as(
        daemon,
        STRANGER,
        ("daemon.hello", {}),
        ("daemon.status", {}),
        ("events.subscribe", {}),
        ("events.unsubscribe", {"subscription": 1}),
        ("events.forget", {"consumer": "crm"}),
        ("session.status", {"company": "acme"}),
    )
    assert {outcome for outcome, _ in answers} == {"denied"}
    async with daemon.client() as client:  # root
        assert "version" in await client.call("daemon.hello")


async def test_the_command_says_it_with_its_exit_code(daemon: Daemon) -> None:
    program = (
        f"import json, os, sys; sys.path[:] = {sys.path!r}\n"
        "import whatsappctl.client, whatsappctl.commands.status\n"
        "from whatsappctl.cli import main\n"
        f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "sys.argv[1:] = ['status', '--socket', sys.argv[1]]\nmain()"
    )
    run = await trio.run_process(
        [sys.executable, "-c", program, str(daemon.socket)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd="/",
    )
    assert run.returncode == EXIT_DENIED, run.stderr
    assert f"user = {STRANGER}".encode() in run.stderr


async def test_consumers_of_bound_users_are_their_own(daemon: Daemon) -> None:
    async with daemon.client() as client, following(client) as events:
        await link(client, events, "acme", "+15550100")
        await client.call("events.subscribe", after=3, consumer="crm")
    [subscribed] = await call_as(
        daemon, SHOP, ("events.subscribe", {"after": 0, "consumer": "crm"})
    )
    assert subscribed[1]["after"] == 0
    [acked] = await call_as(daemon, SHOP, ("events.ack", {"consumer": "crm", "seq": 2}))
    assert acked == ["ok", {"cursor": 2}]
    async with daemon.client() as client:
        answer = await client.call("events.subscribe", consumer="crm")
        assert answer["after"] == 3


async def test_without_rules_the_sockets_permissions_decide(tmp_path: Path) -> None:
    async with running_daemon("--sandbox", "--set", "socket_mode=0666") as daemon:
        daemon.directory.chmod(0o711)
        [answer] = await call_as(daemon, STRANGER, ("session.list", {}))
        assert answer == ["ok", {"sessions": []}]
    async with running_daemon("--sandbox") as daemon:
        daemon.directory.chmod(0o711)
        [answer] = await call_as(daemon, STRANGER, ("session.list", {}))
        assert answer[0] == "denied"  # by the kernel


async def test_the_socket_is_given_to_the_configured_group() -> None:
    async with running_daemon("--sandbox", "--set", f"socket_group={STAFF}") as daemon:
        daemon.directory.chmod(0o711)
        found = daemon.socket.stat()
        assert (found.st_gid, found.st_mode & 0o777) == (STAFF, 0o660)
        [answer] = await call_as(daemon, MEMBER, ("session.list", {}), groups=(STAFF,))
        assert answer == ["ok", {"sessions": []}]
        [answer] = await call_as(daemon, MEMBER, ("session.list", {}))
        assert answer[0] == "denied"


async def test_a_reload_takes_rights_from_those_who_are_connected(daemon: Daemon) -> None:
    # A follower as another user, and one whose rights do not change.
    program = CALLER.replace(
        "for method, arguments in calls:",
        "client.call('events.subscribe', after=0); print('subscribed', flush=True)\n"
        "try:\n    client._connection.notification(deadline=60)\n"
        "except whatsappd.errors.WhatsappdError as error:\n"
        "    print(json.dumps([error.name, error.message]), flush=True)\n"
        "for method, arguments in []:",
    )
    followers: dict[int, trio.Process] = {}
    try:
        for uid in (SHOP, WATCHER):
            process = followers[uid] = await trio.lowlevel.open_process(
                [
                    *(sys.executable, "-c", program, json.dumps(sys.path), str(daemon.socket)),
                    json.dumps([uid, [], []]),
                ],
                stdout=-1,
                cwd="/",
            )
            assert await line_of(process) == "subscribed"
        await reload(daemon, RULES.replace('companies = ["acme"]', 'companies = ["globex"]'))
        name, message = json.loads(await line_of(followers[SHOP]))
        assert name == "denied"
        assert "connect again" in message
        assert followers[WATCHER].poll() is None
        assert (await call_as(daemon, SHOP, ("session.list", {})))[0][0] == "ok"
        [answer] = await call_as(daemon, SHOP, ("message.list", {"company": "acme"}))
        assert answer[0] == "denied"
    finally:
        for process in followers.values():
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                assert process.stdout
                await process.stdout.aclose()
