"""`netlab exec`, `netlab shell` and `netlab logs`: into the nodes of a lab that runs.

`exec` is called in loops, so nothing heavy is imported here: the state file tells all it needs.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from netlab.errors import NetlabError

OWN_FAILURE = 125


class _OwnUsageError(click.UsageError):
    exit_code = OWN_FAILURE


class _ExecCommand(click.Command):
    """A command whose own failures have the status 125, so that they are not the command's."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _OwnUsageError(error.format_message(), error.ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NetlabError as error:
            click.echo(f"error: {error}", err=True)
            return OWN_FAILURE


_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}


@click.command(name="exec", cls=_ExecCommand, context_settings=_SETTINGS)
@click.option("--lab", "lab_name", metavar="NAME", help="The lab; needed when several run.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal of its own.")
@click.option("-d", "--detach", is_flag=True, help="Leave it running; see `netlab logs`.")
@click.option("--name", metavar="NAME", help="With --detach: what the logs call it.")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    lab_name: str | None,
    tty: bool,
    detach: bool,
    name: str | None,
    node: str,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND in NODE and exit with its status.

    Streams, signals, environment and working directory are those of this command. Failures of
    netlab itself: 125; a command that cannot be run: 126; one that does not exist: 127.
    """
    from netlab.engine import execute
    from netlab.engine.reach import connect

    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        raise _OwnUsageError(f"options such as {command[0]} go before NODE")
    if not command:
        raise _OwnUsageError("no command to run; write it after NODE")
    execute.fill_standard_streams()
    lab, connection = connect(lab_name, node)
    wanted = execute.Command(node, command, dict(os.environ))
    if detach:
        from netlab.engine.background import start

        with contextlib.closing(connection):
            return start(lab, connection, wanted, name)
    return execute.execute(connection, wanted, terminal=tty)


@click.command(cls=_ExecCommand)
@click.option("--lab", "lab_name", metavar="NAME", help="The lab; needed when several run.")
@click.argument("node")
def shell(lab_name: str | None, node: str) -> int:
    """Open a shell in NODE; its prompt names the node where the shell knows `debian_chroot`."""
    from netlab.engine import execute
    from netlab.engine.reach import connect

    execute.fill_standard_streams()
    _, connection = connect(lab_name, node)
    program = os.environ.get("SHELL") or "/bin/sh"
    if not os.access(program, os.X_OK):
        program = "/bin/sh"
    env = {**os.environ, "debian_chroot": node}
    wanted = execute.Command(node, (program,), env)
    return execute.execute(connection, wanted, terminal=sys.stdin.isatty())


@click.command()
@click.option("--lab", "lab_name", metavar="NAME", help="The lab; needed when several run.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
@click.argument("node", required=False)
def logs(lab_name: str | None, follow: bool, node: str | None) -> None:
    """Show what the background processes of a lab printed, each line with its origin."""
    from netlab.engine import background, state
    from netlab.engine.reach import check_node

    lab = state.find(lab_name)
    if node is not None:
        check_node(lab, node)
    for line in background.lines(lab, node, follow=follow):
        click.echo(line)
