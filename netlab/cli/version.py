"""`netlab version`."""

from __future__ import annotations

import platform
from importlib.metadata import version as distribution_version

import click


@click.command()
def version() -> None:
    """Print the versions of netlab, Python and the kernel."""
    click.echo(f"netlab-tcpip {distribution_version('netlab-tcpip')}")
    click.echo(f"python {platform.python_version()}")
    click.echo(f"kernel {platform.release()}")
