"""`whatsappctl completion`."""

from __future__ import annotations

import click

from whatsappctl.command_options import common_options


@click.command("completion")
@common_options
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that lets a shell complete verbs, options and companies.

    \b
    bash:  whatsappctl completion bash > ~/.local/share/bash-completion/completions/whatsappctl
    zsh:   whatsappctl completion zsh > "${fpath[1]}/_whatsappctl"
    fish:  whatsappctl completion fish > ~/.config/fish/completions/whatsappctl.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    kinds = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    group = click.get_current_context().find_root().command
    completion = kinds[shell](group, {}, "whatsappctl", "_WHATSAPPCTL_COMPLETE")
    # Not `source()`: that also starts the shell to look at its version.
    click.echo(completion.source_template % completion.source_vars())
