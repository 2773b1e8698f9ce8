"""The sample rules and the dashboard name only metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.resources import files

import pytest

from whatsappd.metric import HISTOGRAM
from whatsappd.model.session import SessionState
from whatsappd.monitoring.metrics import ALL_METRICS
from whatsappd.rules.lifecycle import SessionCause

DIRECTORY = files("whatsappd.monitoring")
NAME = "prometheus-rules.yml"
RULES = (DIRECTORY / NAME).read_text()
DASHBOARD = json.loads((DIRECTORY / "grafana-dashboard.json").read_text())

KNOWN = {metric.name for metric in ALL_METRICS} | {
    f"{metric.name}_{part}"
    for metric in ALL_METRICS
    if metric.type == HISTOGRAM
    for part in ("bucket", "count", "sum")
}
LABELS = {metric.name: set(metric.labels) for metric in ALL_METRICS}


def expressions() -> Iterator[str]:
    yaml = pytest.importorskip("yaml")
    for group in yaml.safe_load(RULES)["groups"]:
        for rule in group["rules"]:
            assert re.fullmatch("Whatsappd[A-Za-z]+", rule["alert"])
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("critical", "warning")
            yield rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_every_metric_that_is_named_exists() -> None:
    named = {name for text in expressions() for name in re.findall(r"whatsappd_[a-z_]+", text)}
    assert named <= KNOWN
    assert len(named) > 20


def test_every_label_that_is_asked_for_exists() -> None:
    for text in expressions():
        for name, selectors in re.findall(r"(whatsappd_[a-z_]+)\{([^}]*)\}", text):
            asked = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selectors))
            assert asked <= LABELS[name], text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_accepts_the_rules() -> None:
    printed = subprocess.run(
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(DIRECTORY / NAME)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert f"{RULES.count('- alert:')} rules found" in printed.stdout


def test_states_and_causes_are_spelt_as_they_are() -> None:
    [states] = re.findall(r'whatsappd_session_state\{state=~"([a-z_|]+)"\}', RULES)
    assert set(states.split("|")) <= set(map(str, SessionState))
    [causes] = re.findall(r'cause=~"([a-z_|]+)"', RULES)
    assert set(causes.split("|")) <= set(map(str, SessionCause))


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
