"""Is everything there that a run needs? One line for each thing, with what to do about it.

Nothing is changed: what is written to the lake is taken away, and neither lake nor warehouse is made. Every check has
a limit of time, none stops the others, and no secret is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.cli.doctor import configuration, installation, places, services
from pipeline.cli.doctor.line import Line, warning, within

__all__ = ["Line", "examine"]

#: A Postgres that refuses connections is tried for 10 s.
_LONG_S, _SHORT_S = 15.0, 10.0


def examine(
    overrides: Mapping[str, Any], *, workers: int, scheduler: str | None = None, offline: bool = False
) -> Iterator[Line]:
    """All that can be said, line by line as it is found; `overrides` are settings of the command line.

    With `offline` the source is not asked.
    """
    lines, settings, bad = configuration.settings(overrides)
    yield from within(_SHORT_S, "python", installation.python)
    yield from within(_SHORT_S, "packages", lambda: installation.packages(settings.warehouse))
    yield from within(_SHORT_S, "luigi.cfg", configuration.file)
    yield from lines
    yield from within(_SHORT_S, "luigi options", configuration.luigi_options)
    yield from within(_SHORT_S, "machine", lambda: installation.machine(workers))
    loaded: places.Loaded = {}
    checks = {
        "lake": (_LONG_S, lambda: places.lake(settings)),
        "warehouse": (_LONG_S, lambda: places.warehouse(settings, loaded)),
        "logs": (_SHORT_S, lambda: places.logs(settings)),
        "source": (_SHORT_S, lambda: services.source(settings)),
    }
    for name, (seconds, ask) in checks.items():
        if name in bad:
            yield warning(name, "not looked at, since the setting cannot be", "mend the setting")
        elif not (offline and name == "source"):
            yield from within(seconds, name, ask)
    yield from within(_SHORT_S, "disk", lambda: places.disk(settings, loaded))
    yield from within(_SHORT_S, "scheduler", lambda: services.scheduler(scheduler))
