"""The guides hold together: topics, links, widths, commands that exist, generated tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import click
import pytest
from documents import ROOT, Block, blocks, documents

from whatsappctl.cli import cli as whatsappctl
from whatsappd import errors
from whatsappd.cli import cli as whatsappd
from whatsappd.config.load import load
from whatsappd.config.sources import Sources
from whatsappd.manual.generated import TABLES, renewed
from whatsappd.manual.parsed import parse, plain, slug
from whatsappd.manual.topics import TOPICS, path_of, read
from whatsappd.model.event import EVENT_TYPES
from whatsappd.model.message import OutboxState
from whatsappd.model.session import SessionState
from whatsappd.rules.alerts import AlertRule
from whatsappd.rules.webhook_alerts import WebhookAlert

PROGRAMS: dict[str, click.Command] = {"whatsappctl": whatsappctl, "whatsappd": whatsappd}
#: With two columns of margin and four of indentation this fits into 80.
WIDEST_CODE = 72


@cache
def anchors(text: str) -> set[str]:
    return {slug(plain(node)) for node in parse(text).walk() if node.type == "heading"}


def links(text: str) -> Iterator[str]:
    return (str(node.attrs["href"]) for node in parse(text).walk() if node.type == "link")


def test_each_topic_is_a_guide_and_each_guide_a_topic() -> None:
    files = {path.stem for path in path_of("sending").parent.glob("*.md")}
    assert files == set(TOPICS)


@pytest.mark.parametrize("topic", TOPICS)
def test_a_guide_begins_with_its_title_and_what_it_is_for(topic: str) -> None:
    title, first, *_ = parse(read(topic)).children
    assert (title.type, title.tag) == ("heading", "h1")
    assert first.type == "paragraph"
    assert plain(first).startswith("For ")


@pytest.mark.parametrize("topic", TOPICS)
def test_the_generated_tables_are_those_of_the_code(topic: str) -> None:
    assert renewed(read(topic)) == read(topic), "renew it: python -m whatsappd.manual renew"


def test_each_generated_table_stands_in_one_guide() -> None:
    marks = re.findall(r"<!-- generated:(\w+) -->", "".join(map(read, TOPICS)))
    assert sorted(marks) == sorted(TABLES)


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere(name: str) -> None:
    base = ROOT if name == "README.md" else path_of("sending").parent
    for href in links(documents()[name]):
        if href.startswith("http"):
            continue
        file, _, anchor = href.partition("#")
        target = base / file if file else base / name
        assert target.is_file(), href
        assert not anchor or anchor in anchors(target.read_text()), href


def test_every_guide_can_be_reached_from_the_readme() -> None:
    linked = {Path(href.partition("#")[0]).stem for href in links(documents()["README.md"])}
    assert set(TOPICS) <= linked


def test_marks_are_unique() -> None:
    marks = [each.mark for each in blocks() if each.mark]
    assert len(marks) == len(set(marks))


@pytest.mark.parametrize("topic", TOPICS)
def test_code_fits_a_terminal(topic: str) -> None:
    for each in blocks():
        if each.document == f"{topic}.md":
            assert max(map(len, each.text.splitlines())) <= WIDEST_CODE, each.text


# --- what there is, is named --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guide", "names"),
    [
        ("linking", SessionState),
        ("sending", OutboxState),
        ("events", sorted(EVENT_TYPES)),
        ("monitoring", [*AlertRule, *WebhookAlert]),
    ],
    ids=["states of sessions", "states of messages", "events", "alerts"],
)
def test_a_guide_names_all_that_there_are(guide: str, names: Iterable[str]) -> None:
    shown = {node.content for node in parse(read(guide)).walk() if node.type == "code_inline"}
    assert set(map(str, names)) <= shown


def test_the_guide_to_commands_names_all_of_them_and_all_exit_codes() -> None:
    text = read("commands")
    shown = " ".join(node.content for node in parse(text).walk() if node.type == "code_inline")
    for program in (whatsappctl, whatsappd):
        assert isinstance(program, click.Group)
        for verb in program.list_commands(click.Context(program)):
            assert re.search(rf"\b{verb}\b", shown), verb
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes <= {int(found) for found in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


# --- the commands that are shown exist ----------------------------------------------------------


def calls(script: str) -> Iterator[tuple[str, list[str]]]:
    """The calls of our programs in a shell script: the program, and its arguments."""
    script = re.sub(r"<<'END'\n.*?\nEND\n", "\n", script.replace("\\\n", " "), flags=re.DOTALL)
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        words.whitespace_split = True
        found: list[str] | None = None
        program, before = "", ";"
        for word in [*words, ";"]:
            if found is not None and is_operator(word):
                yield program, found
                found = None
            elif found is not None:
                found.append(word)
            elif Path(word).name in PROGRAMS and (is_operator(before) or before == "do"):
                program, found = Path(word).name, []
            before = word


def is_operator(word: str) -> bool:
    return set(word) <= set("();<>|&")


def check_call(program: str, arguments: list[str]) -> None:
    """Raises click.UsageError: there is no such command or option."""
    command, context = PROGRAMS[program], None
    name: str | None = program
    with ExitStack() as stack:  # closes the files that the commands opened
        while True:
            context = command.make_context(name, list(arguments), parent=context)
            stack.enter_context(context)
            rest = [*context._protected_args, *context.args]
            if not isinstance(command, click.Group) or not rest:
                return
            name, found, arguments = command.resolve_command(context, rest)
            assert found is not None
            command = found


def shown_calls() -> list[tuple[str, str, list[str]]]:
    return [
        (each.document, program, arguments)
        for each in blocks()
        if each.language == "sh"
        for program, arguments in calls(each.text)
    ]


@pytest.mark.parametrize(
    ("document", "program", "arguments"),
    [pytest.param(*call, id=f"{call[0]}: {call[1]} {' '.join(call[2])}") for call in shown_calls()],
)
def test_a_command_line_is_one_that_the_programs_take(
    document: str,
    program: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for argument in arguments:  # files that must be there
        if re.fullmatch(r"\w+\.(tar|ndjson)", argument):
            (tmp_path / argument).touch()
    check_call(program, arguments)


@pytest.mark.parametrize("name", documents())
def test_commands_in_sentences_and_tables_exist_too(name: str) -> None:
    for node in parse(documents()[name]).walk():
        if node.type == "code_inline" and re.match(r"whatsapp(ctl|d) ", node.content):
            program, *words = shlex.split(node.content)
            command: click.Command | None = PROGRAMS[program]
            context = click.Context(PROGRAMS[program])
            while isinstance(command, click.Group) and words and re.match("[a-z]", words[0]):
                command = command.get_command(context, words.pop(0))
            assert command is not None, node.content
            params = command.get_params(click.Context(command))
            options = {name for each in params for name in each.opts + each.secondary_opts}
            shown = {word for word in words if word.startswith("--")} - {"--help", "--json"}
            assert shown <= options, node.content


def test_a_wrong_command_would_be_noticed() -> None:
    [(program, arguments)] = calls('KEY=$(whatsappctl keys create "my shop" --skope admin)')
    with pytest.raises(click.UsageError):
        check_call(program, arguments)
    with pytest.raises(click.UsageError):
        check_call("whatsappctl", ["sendd", "acme"])


# --- settings that are shown are taken ----------------------------------------------------------


@pytest.mark.parametrize(
    "shown", [each for each in blocks() if each.language == "toml"], ids=lambda each: each.mark
)
def test_settings_that_are_shown_are_taken(shown: Block, tmp_path: Path) -> None:
    path = tmp_path / "whatsappd.toml"
    # Users and groups that this host need not have.
    path.write_text(re.sub(r'^(user|group) = "\w+"', r"\1 = 1000", shown.text, flags=re.MULTILINE))
    load(Sources({}, config=path))
