"""How many messages a company may send, and where that is counted.

The settings hold for companies without limits of their own, which `session.configure` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Struct, structs

from whatsappd.errors import InvalidParams
from whatsappd.setting import WrittenAs, setting

#: The most a limit can be set to; a larger number is a slip of the finger.
MAX_LIMIT = 1_000_000


class SendLimits(Struct, frozen=True):
    """A company's limits; 0 switches one off."""

    per_minute: Annotated[
        int,
        setting(
            "limits.per_company_per_minute",
            "Messages of one company in any minute. 0: no limit.",
            ge=0,
            le=MAX_LIMIT,
            live=True,
        ),
    ] = 30
    per_phone_per_minute: Annotated[
        int,
        setting(
            "limits.per_phone_per_minute",
            "Messages of one company to the same number in any minute. 0: no limit.",
            ge=0,
            le=MAX_LIMIT,
            live=True,
        ),
    ] = 30
    cold_per_hour: Annotated[
        int,
        setting(
            "outreach.cold_per_hour",
            "First messages of one company in any hour. 0: no limit.",
            ge=0,
            le=MAX_LIMIT,
            live=True,
        ),
    ] = 20
    cold_per_day: Annotated[
        int,
        setting(
            "outreach.cold_per_day",
            "First messages of one company in any 24 hours. 0: no limit.",
            ge=0,
            le=MAX_LIMIT,
            live=True,
        ),
    ] = 100

    def changed(self, changes: Mapping[str, Any]) -> SendLimits:
        """These limits with `changes` (by field name; others are ignored) applied."""
        known = {name: value for name, value in changes.items() if name in LIMIT_NAMES}
        return structs.replace(self, **known)

    def as_wire(self) -> dict[str, int]:
        return structs.asdict(self)


#: The limits' names, in the RPC too.
LIMIT_NAMES = SendLimits.__struct_fields__


class LimiterSettings(Struct, frozen=True):
    redis_url: Annotated[
        str,
        setting(
            "limits.redis_url",
            "Keep the windows in this Redis, so that several daemons share them. Empty: in memory. "
            "Redis' own clock counts; a Redis Cluster is not supported. A password may hold any "
            "character, as it is or as %XX. Needs the extra `redis` "
            "(pip install 'whatsappd[redis]').",
            written_as=WrittenAs.REDIS_URL,
        ),
    ] = ""


def check_limit(name: str, value: int) -> int:
    """`value` if it can be a limit.

    Raises:
        InvalidParams: it is out of range; the message names `name`.
    """
    if 0 <= value <= MAX_LIMIT:
        return value
    raise InvalidParams(f"{name}: {value} is no limit: use 0 (off) to {MAX_LIMIT}", field=name)
