"""The options of `whatsappd gateway`, made from the settings that the gateway declares."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import click
from msgspec import structs

from whatsappd.gateway.settings import DEFAULT_BIND, Bind, GatewaySettings, parse_bind
from whatsappd.model.paths import socket_to_reach
from whatsappd.working_directory import from_start


@cache
def click_options() -> list[click.Option]:
    """One for each setting, in their order."""
    return [_option(field) for field in structs.fields(GatewaySettings)]


def _option(field: structs.FieldInfo) -> click.Option:
    value_type, meta = get_args(field.type)
    flag = meta.extra["name"] or "--" + field.name.replace("_", "-")
    if value_type is bool:
        return click.Option([flag, field.name], is_flag=True, help=meta.description)
    is_path = Path in (value_type, *get_args(value_type))
    is_bind = value_type is Bind
    return click.Option(
        [flag, field.name],
        type=click.Path(path_type=Path, dir_okay=True) if is_path else click.STRING,
        default=DEFAULT_BIND if is_bind else None,
        show_default=is_bind,
        metavar=meta.extra["metavar"],
        help=meta.description,
    )


def settings_from(options: dict[str, Any]) -> GatewaySettings:
    """What the options say; paths are taken from where the gateway is started.

    Raises:
        InvalidParams: `bind` is no address.
    """
    paths = {name: options[name] and from_start(options[name]) for name in ("tls_cert", "tls_key")}
    bind = parse_bind(options["bind"])
    socket = (options["socket"] or Path(socket_to_reach())).absolute()
    return GatewaySettings(**{**options, **paths, "bind": bind, "socket": socket})
