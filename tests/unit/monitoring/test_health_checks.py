"""Each check of the daemon's own health: what fails it, and what it says then."""

from __future__ import annotations

from pathlib import Path

from whatsappd.limits.port import LimiterHealth
from whatsappd.model.webhook import StoredWebhook, WebhookConfig
from whatsappd.monitoring import health_checks as health
from whatsappd.monitoring.kernel import Disk
from whatsappd.monitoring.settings import AlertSettings
from whatsappd.rules.bounds import DEAD_LETTER_BYTES, DEAD_LETTERS
from whatsappd.rules.session_health import Judgement
from whatsappd.state_directory import Place

THRESHOLDS = AlertSettings()
WEBHOOK = StoredWebhook(
    id="5pk2wczu",
    revision=1,
    wanted=WebhookConfig("https://shop.example/secret-path"),
    secret="whsec_",
    created_ms=1,
    updated_ms=1,
    delivered=0,
    failures=0,
    last_success_ms=None,
    failing_since_ms=None,
    paused_since_ms=None,
    last_error=None,
    gone=0,
    cursor=0,
    dead_letters=0,
    dead_bytes=0,
    owner=None,
)


def test_a_file_that_is_not_the_one_in_use_any_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "whatsappd.db"
    path.touch()
    places = [Place.of(tmp_path), Place.of(path)]
    assert health.check_places(places).ok
    path.rename(tmp_path / "old")
    assert "whatsappd.db was removed" in health.check_places(places).detail
    path.touch()
    assert "whatsappd.db was replaced" in health.check_places(places).detail
    path.unlink()
    (tmp_path / "old").rename(path)
    assert health.check_places(places).ok


def test_each_check_that_fails_has_a_remedy() -> None:
    ill = health.SessionHealth("acme", True, "failed", Judgement(False, "x", "y"), None, None, 1)
    failed = [
        health.check_store("the disk is full"),
        health.check_event_loop(THRESHOLDS.event_loop_delay_ms, THRESHOLDS),
        health.check_disk(Disk(1, 2), THRESHOLDS),
        health.check_disk(Disk(1 << 40, 1 << 41, files_free=99), THRESHOLDS),
        health.check_disk(Disk(1 << 40, 1 << 41), THRESHOLDS, "the disk quota is exceeded"),
        health.check_rounds(False),
        health.check_descriptors(10, 10),
        health.check_limiter(LimiterHealth("redis", "no answer")),
        health.check_sessions([ill]),
        health.check_webhooks([WEBHOOK._replace(paused_since_ms=1)], None),
        health.check_webhooks([WEBHOOK._replace(dead_letters=DEAD_LETTERS.each)], None),
        health.check_webhooks([WEBHOOK._replace(dead_bytes=DEAD_LETTER_BYTES.each - 1)], None),
        health.check_webhooks([WEBHOOK], 180_000),
        health.check_webhooks(None, None),
    ]
    for check in failed:
        assert not check.ok
        assert check.remedy
    assert not health.HealthReport(failed, []).healthy
    assert not health.HealthReport([], [ill]).healthy
    assert health.HealthReport([], []).healthy


def test_webhooks_that_nobody_waits_for_are_well() -> None:
    disabled = WEBHOOK._replace(wanted=WebhookConfig("https://shop.example/", enabled=False))
    assert health.check_webhooks([], 10**9).ok
    assert health.check_webhooks([disabled._replace(paused_since_ms=1)], 10**9).ok
    # A gateway that is only being restarted, an attempt that failed, a letter for somebody to read.
    assert health.check_webhooks([WEBHOOK], 60_000).ok
    assert health.check_webhooks([WEBHOOK._replace(failing_since_ms=1, dead_letters=3)], None).ok


def test_what_is_told_of_webhooks_holds_no_url() -> None:
    check = health.check_webhooks([WEBHOOK._replace(paused_since_ms=1)] * 7, None)
    assert "5pk2wczu" in check.detail
    assert "…" in check.detail
    assert "shop.example" not in f"{check.detail} {check.remedy}"


def test_a_check_that_is_switched_off_always_passes() -> None:
    nothing = AlertSettings(0, 0, 0, 0, 0, 0)
    assert health.check_event_loop(10**6, nothing).ok
    assert health.check_disk(Disk(0, 1), nothing).ok
