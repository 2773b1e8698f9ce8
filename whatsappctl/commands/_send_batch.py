"""`send --batch`: checks a file, sends it, and says exactly how far it came."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import IO, TYPE_CHECKING, Any

import click

from whatsappctl.batch_lines import BadBatchLine, BatchDefaults, BatchLine, lines, rereadable
from whatsappctl.batch_sender import BatchSender, LineOutcome
from whatsappctl.command_options import client, options
from whatsappctl.interrupts import Interrupts
from whatsappctl.output import json_text, print_json, say
from whatsappd.errors import EXIT_FAILED, EXIT_USAGE, InvalidParams, WhatsappdError
from whatsappd.wire.escape import printable

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

#: The longest prefix of keys; it leaves room for a key behind it.
MAX_PREFIX = 100
#: Redraws of the progress bar, at the most.
REDRAWS = 500
INTERRUPTED = {"name": "interrupted", "message": "interrupted"}


def send_batch(
    file: IO[bytes],
    *,
    company: str | None,
    skip_bad: bool,
    key_prefix: str,
    timeout: float | None,
    ttl_ms: int | None,
    on_uncertain: str | None,
    no_queue: bool,
) -> None:
    """The whole command. Ends the process with 0 only if every line is accepted."""
    assert not no_queue
    if len(key_prefix) > MAX_PREFIX:
        raise click.UsageError(f"--key-prefix: at most {MAX_PREFIX} characters")
    gc.enable()  # `cli.main` does without it, but this may run for hours
    with client() as daemon:
        path = daemon.path
        known = frozenset(session["company"] for session in daemon.sessions())
    defaults = BatchDefaults(company, ttl_ms, on_uncertain, key_prefix, known)
    counts = BatchCounts()
    with rereadable(file) as again:
        start = again.tell()
        for line in lines(again, defaults):
            if isinstance(line, BadBatchLine):
                counts.bad += 1
                _tell_bad(line)
            else:
                counts.good += 1
        if counts.bad and not skip_bad:
            say(
                f"whatsappctl: nothing was sent: {counts.bad} of {counts.good + counts.bad} "
                "lines are bad (--skip-bad sends the others)",
                err=True,
            )
            click.get_current_context().exit(EXIT_USAGE)
        again.seek(start)
        with closing(lines(again, defaults)) as found:
            good = (line for line in found if isinstance(line, BatchLine))
            _send(path, good, counts, timeout)


def _send(path: str, good: Iterator[BatchLine], counts: BatchCounts, timeout: float | None) -> None:
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        bar = _progress(stack, counts.good)

        def report(outcome: LineOutcome) -> None:
            counts.note(outcome)
            if bar is not None:
                bar.update(1)
            _tell(outcome)

        sender = BatchSender(
            path, good, report=report, notice=_notice, interrupts=interrupts, deadline=timeout
        )
        try:
            sender.run()
        except WhatsappdError as error:
            stack.close()
            _tell_end(counts, sender, error.as_wire())
            click.get_current_context().exit(error.exit_code)
        except KeyboardInterrupt:
            stack.close()
            _tell_end(counts, sender, INTERRUPTED)
            raise
    if interrupts.asked and counts.left:
        _tell_end(counts, sender, INTERRUPTED)
        click.get_current_context().exit(130)
    if options().json:
        click.echo(json_text({"summary": counts.as_json()}), err=True)
    else:
        say(counts.sentence())
    if counts.failed or counts.bad:
        click.get_current_context().exit(EXIT_FAILED)


class BatchCounts:
    """How many lines became what."""

    def __init__(self) -> None:
        self.good = 0
        self.bad = 0
        self.accepted = 0
        self.before = 0
        self.failed = 0

    @property
    def left(self) -> int:
        return self.good - self.accepted - self.before - self.failed

    def note(self, outcome: LineOutcome) -> None:
        if outcome.error is not None:
            self.failed += 1
        elif outcome.before:
            self.before += 1
        else:
            self.accepted += 1

    def as_json(self) -> dict[str, int]:
        return {
            "lines": self.good + self.bad,
            "accepted": self.accepted,
            "accepted_before": self.before,
            "failed": self.failed,
            "bad": self.bad,
            "left": self.left,
        }

    def sentence(self) -> str:
        parts = [f"{self.good + self.bad} lines: {self.accepted} accepted"]
        if self.before:
            parts.append(f"{self.before} accepted before")
        if self.failed:
            parts.append(f"{self.failed} refused")
        if self.bad:
            parts.append(f"{self.bad} bad")
        if self.left:
            parts.append(f"{self.left} left")
        return ", ".join(parts)


def _progress(stack: ExitStack, length: int) -> ProgressBar[Any] | None:
    if not sys.stderr.isatty():
        return None
    return stack.enter_context(
        click.progressbar(
            length=length,
            label="sending",
            file=sys.stderr,
            show_pos=True,
            update_min_steps=max(1, length // REDRAWS),
        )
    )


def _notice(text: str) -> None:
    # Behind a bar, which stands on a line without an end.
    click.echo(("\n" if sys.stderr.isatty() else "") + printable(text), err=True)


def _tell_bad(line: BadBatchLine) -> None:
    text = "; ".join(line.problems)
    if options().json:
        error = InvalidParams(text, problems=line.problems)
        print_json({"line": line.number, "error": error.as_wire()})
    else:
        say(f"line {line.number}: {text}", err=True)


def _tell(outcome: LineOutcome) -> None:
    number = outcome.line.number
    if options().json:
        if outcome.row is None:
            assert outcome.error is not None
            print_json({"line": number, "error": outcome.error.as_wire()})
        else:
            told = {name: outcome.row[name] for name in ("id", "state", "key", "company")}
            print_json({"line": number, **told, "accepted_before": outcome.before})
    elif outcome.error is not None:
        _notice(f"line {number}: {outcome.error.message}")


def _tell_end(counts: BatchCounts, sender: BatchSender, why: dict[str, Any]) -> None:
    """What a person must know who sees it end early."""
    doubt = f" ({sender.in_doubt} of them sent without an answer)" if sender.in_doubt else ""
    remedy = "run the same again: it completes the batch and sends nothing twice"
    if options().json:
        summary = {**counts.as_json(), "in_doubt": sender.in_doubt}
        click.echo(json_text({"error": why, "summary": summary}), err=True)
    else:
        reason = printable(why["message"])
        say(f"whatsappctl: {reason}: {counts.sentence()}{doubt}; {remedy}", err=True)
