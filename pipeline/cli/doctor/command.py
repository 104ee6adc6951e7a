"""The command that looks whether everything is there that a run needs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from pipeline.cli.doctor import Line, examine
from pipeline.cli.options import as_json, console, print_json, settings_options
from pipeline.errors import visible

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}
#: As wide as the longest of the names, and a gap.
_STATUS_WIDTH, _CHECK_WIDTH = 9, 15


@click.command()
@settings_options
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64), help="For how many processes.")
@click.option("--scheduler", metavar="URL", help="A luigid to look at; else that of [core] scheduler_url.")
@click.option("--offline", is_flag=True, help="Do not ask the source.")
@as_json
def doctor(workers: int, scheduler: str | None, offline: bool, as_json: bool, **settings: Any) -> None:
    """Check what a run needs, and say what is missing.

    For each problem it says what to do. Checked are Python and packages, luigi.cfg, memory and disk, lake, warehouse,
    logs, source and its clock, luigid. Nothing is changed, and no secret is shown. The exit code is 0 when nothing
    failed, though there may be warnings, and else 1.

    \b
    pipeline doctor
    pipeline doctor --offline --json
    pipeline doctor --warehouse postgresql://taxi@localhost/ny_taxi --workers 4
    """  # noqa: D301 (click wants the character itself)
    found = examine(settings, workers=workers, scheduler=scheduler, offline=offline)
    lines = list(found) if as_json else list(_printed(found))
    failures, warnings = (sum(line.status == status for line in lines) for status in ("failed", "warning"))
    if as_json:
        print_json({"failed": failures, "warnings": warnings, "checks": [asdict(line) for line in lines]})
    sys.exit(1 if failures else 0)


def _printed(lines: Iterable[Line]) -> Iterable[Line]:
    """Print each line as soon as it is known; on a terminal, what does not fit goes on below where it began."""
    out = console()
    for line in lines:
        status = Text(line.status.ljust(_STATUS_WIDTH), style=_STYLES[line.status])
        text = Text(visible(f"{line.message}; {line.remedy}" if line.remedy else line.message))
        if out.is_terminal:
            row = Table.grid()
            row.add_column(width=_STATUS_WIDTH)
            row.add_column(width=_CHECK_WIDTH)
            row.add_column(overflow="fold")
            row.add_row(status, line.check, text)
            out.print(row)
        else:
            out.print(Text.assemble(status, line.check.ljust(_CHECK_WIDTH), text), soft_wrap=True)
        yield line
