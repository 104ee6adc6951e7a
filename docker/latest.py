"""Run the task `Latest` once: the datasets and months that TAXI_DATASETS and TAXI_MONTHS name."""

from __future__ import annotations

import logging
import os
import sys
from datetime import date

from pipeline.cli.run import exit_code
from pipeline.errors import PipelineError, UsageError
from pipeline.runs.runner import Stopped, run
from pipeline.settings import adopt, resolve
from pipeline.tasks import luigi_options
from pipeline.tasks.base import log
from pipeline.tasks.parameters import DatasetsParameter
from pipeline.tasks.runs import Latest


def main() -> int:
    """The exit code is that of the `pipeline` command."""
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler(sys.stdout)]
    luigi_options.prepare_luigi()
    try:
        adopt(resolve())
        names = DatasetsParameter().parse(os.environ.get("TAXI_DATASETS") or "all")
        # The last month is said, since a worker may be given the task itself, and reads its parameters from luigid.
        months, last = int(os.environ.get("TAXI_MONTHS") or 12), date.today().replace(day=1)
        latest = Latest(datasets=names, months=months, last=last)
        outcomes = run([latest], workers=1, scheduler_url=os.environ.get("LUIGI_SCHEDULER_URL") or None)
    except Stopped as stopped:
        return 128 + stopped.number
    except (PipelineError, ValueError) as error:
        log.error(f"latest: {type(error).__name__}: {error}")
        return 2 if isinstance(error, (UsageError, ValueError)) else 5
    for outcome in outcomes:
        if outcome.failed:
            log.error(
                f"latest: {outcome.step} {outcome.dataset} {outcome.month or ''}: {outcome.kind}: {outcome.error}"
            )
    log.info(f"latest: {sum(outcome.status == 'DONE' for outcome in outcomes)} of {len(outcomes)} missing steps done")
    return exit_code(outcomes)


if __name__ == "__main__":
    sys.exit(main())
