"""The parts that all sessions share; made by `app`."""

from __future__ import annotations

from typing import NamedTuple

from whatsappd.engines.port import Engine
from whatsappd.sessions.inbound import InboundLog
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.port import Companies, Outbox


class SessionParts(NamedTuple):
    engine: Engine
    companies: Companies
    inbound: InboundLog
    outbox: Outbox
    settings: SessionSettings
