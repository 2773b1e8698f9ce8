"""The session's machine: an incident goes in, the state and what is to be done come out.

No worker, no task, no store and no clock: a test says what happened, and when.
"""

from __future__ import annotations

import pytest

from whatsappd.clock import Moment
from whatsappd.model.session import SessionState as S
from whatsappd.rules import incidents
from whatsappd.rules.incidents import Incident, plain
from whatsappd.rules.lifecycle import SessionCause, WorkerAction
from whatsappd.sessions.session_machine import SessionMachine
from whatsappd.sessions.settings import SessionSettings

BEGAN = Moment(1_700_000_000_000, 5_000)
SETTINGS = SessionSettings(
    crash_limit=2,
    crash_window_ms=60_000,
    retry_base_ms=1_000,
    retry_cap_ms=4_000,
    stable_ms=10_000,
    shortest_ban_ms=60_000,
    crash_rest_ms=1_800_000,
)
KILLED = incidents.exited("killed by SIGKILL", None, None)
PANIC = incidents.exited("exit code 2", "panic: x", None)


class Story:
    """A machine, and a clock that goes on by as much as is said."""

    def __init__(self) -> None:
        self.machine = SessionMachine(SETTINGS, BEGAN)
        self.now = BEGAN

    def after(self, delay_ms: int) -> Story:
        self.now = self.now.after(delay_ms)
        return self

    def happens(self, *happened: SessionCause | Incident) -> WorkerAction | None:
        """What is to be done about the last of them; None: it changes nothing."""
        step = None
        for each in happened:
            incident = each if isinstance(each, Incident) else plain(each)
            step = self.machine.take(incident, self.now)
        return None if step is None else step.action


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def connected(story: Story) -> Story:
    story.happens(SessionCause.START, SessionCause.OPENED, SessionCause.CONNECTED)
    return story


def test_a_session_begins_stopped_and_comes_up(story: Story) -> None:
    machine = story.machine
    assert (machine.state, machine.down_since_ms) == (S.STOPPED, BEGAN.steady_ms)
    assert story.after(10).happens(SessionCause.START) is WorkerAction.SPAWN
    assert machine.since == BEGAN.after(10)
    assert machine.down_since_ms == BEGAN.after(10).steady_ms  # before, nobody wanted it
    assert story.happens(SessionCause.OPENED) is WorkerAction.NONE
    assert story.happens(SessionCause.CONNECTED) is WorkerAction.NONE
    assert (machine.state, machine.down_since_ms) == (S.CONNECTED, None)
    assert machine.last_error is None
    assert machine.counters.connections == 1


def test_what_changes_nothing_is_no_step(connected: Story) -> None:
    assert connected.happens(SessionCause.CONNECTED) is None
    assert connected.happens(SessionCause.RETRY_DUE) is None  # no such thing in this state


def test_what_an_earlier_worker_brings_is_ignored(connected: Story) -> None:
    machine = connected.machine
    old = machine.generation
    connected.happens(KILLED)
    assert machine.generation == old + 1
    late = plain(SessionCause.STREAM_REPLACED)
    assert machine.take(late, connected.now, generation=old) is None
    assert machine.state is S.BACKING_OFF


def test_a_crash_is_tried_again_at_a_known_time(connected: Story) -> None:
    machine = connected.machine
    assert connected.happens(KILLED) is WorkerAction.KILL_AND_RETRY
    assert machine.next_try is not None
    wait_ms = machine.next_try.steady_ms - connected.now.steady_ms
    assert 0 <= wait_ms <= SETTINGS.retry_base_ms
    assert machine.next_try.wall_ms - connected.now.wall_ms == wait_ms
    assert (machine.last_error, machine.last_error_ms) == (KILLED.words, connected.now.wall_ms)
    assert connected.after(wait_ms).happens(SessionCause.RETRY_DUE) is WorkerAction.SPAWN
    assert (machine.next_try, machine.restarts) == (None, 1)


def test_too_many_crashes_need_a_person_and_one_who_starts_it_forgives_them(story: Story) -> None:
    story.happens(SessionCause.START)
    for _ in range(SETTINGS.crash_limit):
        assert story.happens(KILLED) is WorkerAction.KILL_AND_RETRY
        story.happens(SessionCause.RETRY_DUE)
    assert story.happens(KILLED) is WorkerAction.KILL
    assert story.machine.state is S.FAILED
    assert "3 times" in story.machine.cause
    story.machine.forgive()
    assert story.machine.restarts == 0
    story.happens(SessionCause.START)
    assert story.happens(KILLED) is WorkerAction.KILL_AND_RETRY


def test_crashes_that_are_far_apart_are_not_too_many(story: Story) -> None:
    story.happens(SessionCause.START)
    for _ in range(5 * SETTINGS.crash_limit):
        assert story.after(SETTINGS.crash_window_ms).happens(KILLED) is WorkerAction.KILL_AND_RETRY
        story.happens(SessionCause.RETRY_DUE)


def test_a_library_that_crashes_on_is_waited_out(story: Story) -> None:
    story.happens(SessionCause.START)
    for _ in range(SETTINGS.crash_limit):
        story.happens(PANIC, SessionCause.RETRY_DUE)
    assert story.happens(PANIC) is WorkerAction.KILL_AND_REST
    assert story.machine.next_try == story.now.after(SETTINGS.crash_rest_ms)


@pytest.mark.parametrize(("expire_s", "wait_ms"), [(3600, 3_600_000), (0, 60_000)])
def test_a_ban_is_waited_for_and_one_without_an_end_is_asked_about_again(
    connected: Story, expire_s: int, wait_ms: int
) -> None:
    assert connected.happens(incidents.banned(101, expire_s)) is WorkerAction.KILL_AND_WAIT
    assert connected.machine.next_try == connected.now.after(wait_ms)


def test_an_event_that_ends_a_worker_again_and_again_is_no_reason_to_go_on_at_once(
    connected: Story,
) -> None:
    broken = incidents.broken_off("Receipt.Type")
    for _ in range(SETTINGS.crash_limit):
        assert connected.happens(broken) is WorkerAction.REPLACE
        connected.happens(SessionCause.OPENED, SessionCause.CONNECTED)
    assert connected.happens(broken) is WorkerAction.KILL_AND_RETRY
    assert connected.machine.state is S.BACKING_OFF


def test_why_it_was_recycled_is_kept_and_is_no_error(connected: Story) -> None:
    assert connected.happens(incidents.recycled("412 descriptors")) is WorkerAction.REPLACE
    machine = connected.machine
    assert (machine.last_recycled, machine.last_error) == ("412 descriptors", None)
    assert machine.counters.restarts[SessionCause.RECYCLED] == 1


def test_an_unlinking_of_ours_is_told_in_our_words_and_once(connected: Story) -> None:
    machine = connected.machine
    machine.unlink_words = "unlinked on request"
    assert connected.happens(incidents.unlinked(401)) is WorkerAction.KILL
    assert (machine.state, machine.cause) == (S.LOGGED_OUT, "unlinked on request")
    assert machine.unlink_words is None


def test_time_down_counts_from_the_loss_and_not_from_each_try(connected: Story) -> None:
    machine = connected.machine
    connected.after(1_000).happens(SessionCause.DISCONNECTED)
    lost_ms = connected.now.steady_ms
    connected.after(1_000).happens(KILLED, SessionCause.RETRY_DUE, SessionCause.OPENED)
    assert machine.down_since_ms == lost_ms
    connected.happens(SessionCause.CONNECTED)
    assert machine.down_since_ms is None


def test_an_error_that_changes_no_state_is_noted(connected: Story) -> None:
    machine = connected.machine
    machine.note_error("WhatsApp sent stream error 503", connected.now)
    assert machine.last_error == "WhatsApp sent stream error 503"
    assert (machine.state, machine.counters.errors) == (S.CONNECTED, 1)
