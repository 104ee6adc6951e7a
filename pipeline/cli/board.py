"""The command that starts the board."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import asdict

import click

from pipeline.board.access import new_link
from pipeline.board.server import STOP_SIGNALS, Options
from pipeline.cli.options import with_settings
from pipeline.errors import UsageError
from pipeline.settings import current_settings
from pipeline.tasks.luigi_options import default_options


@click.command()
@click.option("--allow-runs", is_flag=True, help="Add buttons that start, redo and cancel runs.")
@click.option("--luigid", is_flag=True, help="Be luigid too, at the same address: for workers and the visualiser.")
@click.option("--address", default=Options.address, show_default=True, help="Address of this machine to listen at.")
@click.option("--port", default=Options.port, show_default=True, type=click.IntRange(1, 65535), help="Port.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="Another name under which it is reached.")
@click.option("--link", is_flag=True, help="Only print a new link to the board that runs at this port.")
@click.option("--no-open", is_flag=True, help="Do not open the link in a browser.")
@click.option("--no-link", "is_quiet", is_flag=True, help="Do not print the link, so that no log has it.")
@with_settings
def board(link: bool, no_open: bool, **others: object) -> None:
    """Serve a web page that shows every month.

    It shows all months, the checks, logs and data of each, and all runs, live. The printed link can be used once; then
    the browser has a cookie. Without --allow-runs the page changes nothing. The exit code is 0 after Ctrl-C.

    \b
    pipeline board
    pipeline board --allow-runs --port 9000
    pipeline board --link
    """  # noqa: D301
    settings = current_settings()
    options = Options(**others, opens_browser=not no_open and _has_desktop())  # type: ignore[arg-type]
    if link:
        click.echo(new_link(settings.logs, options.port))
        return
    for name in (options.address, *options.names):
        if not re.fullmatch(r"[\w.:%-]+", name):
            raise UsageError(f"{name!r}: allowed is an address or a name, without scheme, port and brackets")
    # The page needs none of the libraries that this process has. A pipe shows no secret in the list of processes.
    read, write = os.pipe()
    os.set_inheritable(read, True)
    with os.fdopen(write, "w") as pipe:
        json.dump({"options": asdict(options), "settings": asdict(settings), "luigi": default_options()}, pipe)
    # Until the board handles them, so that Ctrl-C in between ends it without a traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.board", str(read)])  # noqa: S606


def _has_desktop() -> bool:
    return sys.stdout.isatty() and (
        sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    )
