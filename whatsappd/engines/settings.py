"""The settings of the processes that hold the WhatsApp accounts."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from whatsappd.setting import setting


class EngineSettings(Struct, frozen=True):
    #: `engines.protocol` has the same words.
    confinement: Annotated[
        Literal["auto", "required", "off"],
        setting(
            "sessions.confinement",
            "Landlock and seccomp keep workers from all that is not theirs. `auto`: as far as the "
            "kernel can; `required`: where it cannot, no worker starts; `off`: not at all.",
        ),
    ] = "auto"
