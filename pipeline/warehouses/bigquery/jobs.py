"""One job of BigQuery, run to its end: named, tried again where that helps, and reported with all of its reasons.

A job's id is ours, so that a request whose answer was lost finds the job it made (409) instead of making another. A job
that BigQuery gave up for want of capacity, or for the sake of another transaction, is followed by a new one.
"""

from __future__ import annotations

import itertools
import random
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.errors import WarehouseError

if TYPE_CHECKING:
    from google.cloud import bigquery

#: How long a job is tried again that BigQuery refuses for the moment: many months wait for each other's statements.
_PATIENCE_S = 1_800.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
#: After how long a job is looked at again that has not ended; each time half as long again.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 5.0
#: How long one call is tried again.
_DEADLINE_S = 300
_PASSING_REASONS = {"rateLimitExceeded", "jobRateLimitExceeded", "backendError", "jobBackendError", "internalError"}
#: What BigQuery says of statements that lost against others, or found the queue full; no reason tells them apart.
_PASSING_TEXTS = (
    "aborted due to concurrent update",
    "Could not serialize access",
    "Too many DML statements outstanding",
)


def new_job_id(*words: str) -> str:
    """A readable id with a random part, such as load_green_2024-01_3f9c2b7a."""
    return "_".join([*words, secrets.token_hex(4)])


def patient() -> Any:
    """How BigQuery is asked again while it is busy or out of reach: as its library does it, until our deadline."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_DEADLINE_S)


def run_job(
    client: bigquery.Client,
    subject: str,
    job_id: str,
    begin: Callable[[str, Any], Any],
) -> Any:
    """Begin a job with `begin(job id, retry)` and wait for its end; returns the job.

    Raises:
        WarehouseError: the job failed, and would fail again.
    """
    from google.api_core.exceptions import Conflict

    retry, began = patient(), time.monotonic()
    for attempt in itertools.count(1):
        name = job_id if attempt == 1 else f"{job_id}_{attempt}"
        try:
            job = begin(name, retry)
        except Conflict:
            # An earlier request made it, and its answer was lost.
            job = client.get_job(name, retry=retry)
        # Not by `job.result()`: it asks for rows, too, and takes the refusal of a job for that of the question.
        pause_s = _FIRST_LOOK_S
        while not job.done(retry=retry):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
        if not job.error_result:
            return job
        reasons = [entry for entry in (job.errors or []) if isinstance(entry, dict)]
        if time.monotonic() - began > _PATIENCE_S or not _passes(reasons):
            error = job.exception()
            raise WarehouseError(f"{subject}: {_told(reasons, error)}; job {_where(client, job)}") from error
        # Half as long to half as long again, so that many workers do not come back all at once.
        time.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


def _passes(reasons: list[dict[str, Any]]) -> bool:
    return any(
        entry.get("reason") in _PASSING_REASONS or any(text in str(entry.get("message")) for text in _PASSING_TEXTS)
        for entry in reasons
    )


def _told(reasons: list[dict[str, Any]], error: Exception) -> str:
    told = [
        f"{entry.get('reason')}: {entry.get('message')}"
        + (f" (at {entry['location']})" if entry.get("location") else "")
        for entry in reasons
    ]
    return "; ".join(dict.fromkeys(told)) or str(error)


def _where(client: bigquery.Client, job: Any) -> str:
    location = job.location or client.location
    page = f"https://console.cloud.google.com/bigquery?project={job.project}&page=queryresults"
    return f"{job.job_id}, {page}&j=bq:{location}:{job.job_id}"
