"""Talking to whatsappd: the `whatsappctl` command, and a blocking client for scripts.

from whatsappctl import Client

with Client() as client:
    client.send("acme", "+15550100", "Your order is ready.", key="order-1042")
"""

# Nothing is imported here at run time, not even annotations' future: `__main__` comes later.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from whatsappctl.client import Client as Client
    from whatsappctl.event_stream import EventStream as EventStream

__all__ = ["Client", "EventStream"]


def __getattr__(name: str) -> "Any":
    # Loaded when asked for: `whatsappctl --help` needs no client.
    if name == "Client":
        from whatsappctl.client import Client

        return Client
    if name == "EventStream":
        from whatsappctl.event_stream import EventStream

        return EventStream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
