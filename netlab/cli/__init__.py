"""The command line: parse, call, print. Everything heavy is imported inside the command.

Data goes to stdout, talk to stderr. `main` is the one place where an exception becomes a
sentence and an exit code; nothing below it prints a traceback for what a user can cause.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import NoReturn

import click

from netlab.errors import NetlabError, TopologyError

# name → (module, help line). The module's `command` is loaded only when it runs.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("lifecycle:up", "Build the network of a topology file."),
    "down": ("lifecycle:down", "Take a running lab away."),
    "status": ("lifecycle:status", "List the labs that run."),
    "inspect": ("lifecycle:inspect", "Show nodes, interfaces and processes of a running lab."),
    "exec": ("nodes:exec_", "Run a command in a node."),
    "shell": ("nodes:shell", "Open a shell in a node."),
    "logs": ("nodes:logs", "Show what the processes of a lab printed."),
    "apply": ("lifecycle:apply", "Turn a running lab's network into that of a topology file."),
    "link": ("live:link", "Show links, set them up and down, let them flap."),
    "sysctl": ("live:sysctl", "Show and set the sysctls of a node."),
    "top": ("top:top", "Watch nodes, links and connections: rates, drops, windows."),
    "capture": ("capture:capture", "Packets as they pass, to Wireshark, a file or the terminal."),
    "pingall": ("pingall:pingall", "Every host pings every other one."),
    "reboot": ("live:reboot", "Switch a node off without a word, and on again."),
    "gc": ("lifecycle:gc", "Remove what dead labs have left behind."),
    "tc": ("tc:tc", "Show and change the impairments of a running lab."),
    "plan": ("topology:plan", "Print what `up` would do, as a commented script."),
    "graph": ("topology:graph", "Draw a topology: mermaid, dot or SVG."),
    "schema": ("topology:schema", "Print the JSON Schema of topology files."),
    "lab": ("lab:lab", "Guided labs: list, show, run, check."),
    "compare": ("compare:compare", "What changed between two runs of a lab."),
    "claims": ("claims:claims", "What documents claim about TCP, and what this kernel does."),
    "notebook": ("notebook:notebook", "Open the guide of a lab in JupyterLab."),
    "report": ("report:report", "Write what a run found as one HTML file."),
    "pcap": ("pcap:pcap", "Summarize captures: flows, segments, diagrams."),
    "doctor": ("doctor:doctor", "What this machine can do, and the remedy for what it cannot."),
    "version": ("version:version", "Versions of netlab, its core, Python and the kernel."),
}

# Words that users of other tools have in their fingers.
ALIASES = {"deploy": "up", "destroy": "down", "connect": "shell"}
# The sections of --help, each with the commands it begins; one that stands nowhere comes last.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Networks": ("up", "down", "status", "inspect", "gc"),
    "Inside a running network": ("exec", "shell", "logs", "top", "capture", "pingall"),
    "Changing a running network": ("apply", "link", "tc", "sysctl", "reboot"),
    "Topology files": ("plan", "graph", "schema"),
    "Labs and captures": ("lab", "compare", "claims", "report", "pcap"),
}


def sections() -> dict[str, list[str]]:
    """Return the sections of --help: every command stands in one."""
    found = {title: [n for n in names if n in COMMANDS] for title, names in SECTIONS.items()}
    known = {name for names in found.values() for name in names}
    return {**found, "More": [name for name in COMMANDS if name not in known]}


class LazyGroup(click.Group):
    """A group whose commands are imported only when they are called, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order in which a user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if there is none of that name."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(importlib.import_module(f"netlab.cli.{module}"), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve a command name; an unknown one gets the nearest known name as a hint."""
        known = COMMANDS.keys() | ALIASES.keys()
        if args and args[0] not in known and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], sorted(known), n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            ctx.fail(f"no such command '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command here, or the whole command line in a guest."""
        if ctx.params.get("machine") == "guest":
            from netlab.cli.machine import forward

            first = ctx._protected_args  # pyright: ignore[reportPrivateUsage] - no public name
            return forward([*first, *ctx.args], ctx.params["writable"])
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command table from `COMMANDS` without importing any command."""
        for title, names in sections().items():
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])
        with formatter.section("Aliases"):
            formatter.write_dl([(name, f"netlab {meant}") for name, meant in ALIASES.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="netlab-tcpip", prog_name="netlab")
@click.option(
    "--machine",
    type=click.Choice(["local", "guest"]),
    default="local",
    help="Where to run the command: here, or in a User-Mode Linux guest (docs/guest.md).",
)
@click.option(
    "--writable",
    metavar="DIRECTORY",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="With --machine guest: one more folder in which files are kept (repeatable).",
)
def cli(machine: str, writable: tuple[str, ...]) -> None:
    """TCP/IP experiments on real Linux networks, recorded and checked."""


def _printing(error: OSError) -> bool:
    """Tell whether an error came out of writing to standard output: it names no file then."""
    place = error.__traceback__
    if place is not None and place.tb_next is None:
        return True  # the flush at the end of `main`
    while place is not None:
        frame = place.tb_frame
        if frame.f_code is click.echo.__code__ and not frame.f_locals.get("err"):
            return True
        place = place.tb_next
    return False


def main() -> NoReturn:
    """Run the command line and exit with the documented status (docs/exit-codes.md)."""
    # A command makes many values that stay and hardly a circle of them: a plan of a thousand nodes
    # would take a quarter more time with the collector's usual eagerness.
    gc.set_threshold(100_000, 20, 100)
    interrupts: list[int] = []

    def interrupt(number: int, _frame: object) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        status = cli.main(standalone_mode=False)
        code = status if isinstance(status, int) else 0
        print(end="", flush=True)  # does nothing where standard output is closed
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = 130
    except TopologyError as error:
        # One line each, beginning with file:line:column, as editors and CI annotations read them.
        click.echo(str(error) if error.problems else f"error: {error}", err=True)
        code = error.exit_code
    except NetlabError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        name = f" {error.filename}" if error.filename else ""
        if not name and _printing(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            name = " while writing to standard output"
        click.echo(f"error: {error.strerror or error}{name}", err=True)
        code = 2
    except Exception:
        if not interrupts:
            raise
        # A library in the middle of something made another exception of it.
        click.echo("interrupted", err=True)
        code = 130
    # What was done is done and told: Ctrl-C while Python ends must not change the status.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
