"""Run one BigQuery job to its end: with a job id of our own, with retries, and with all reasons in the error.

If the answer to a request is lost, the next request with the same id finds the job that exists (409). If a job fails
because of a rate limit or a concurrent statement, a new job follows.
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

#: For how long a failed job is followed by new ones: many months wait for each other's statements.
_PATIENCE_S = 1_800.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
#: The pauses between two questions whether a job has ended; each is half as long again as the one before.
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 5.0
#: For how long one request is retried.
_DEADLINE_S = 300
_TRANSIENT_REASONS = {"rateLimitExceeded", "jobRateLimitExceeded", "backendError", "jobBackendError", "internalError"}
#: Messages for statements that met a concurrent one or a full queue; their `reason` does not identify them.
_TRANSIENT_MESSAGES = (
    "aborted due to concurrent update",
    "Could not serialize access",
    "Too many DML statements outstanding",
)


def retry_policy() -> Any:
    """The library's default retries, until our deadline."""
    from google.cloud.bigquery.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_DEADLINE_S)


def run_job(
    client: bigquery.Client, action: str, subject: str, begin: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    """Start a job with the client's method `begin` and these arguments, wait for its end, and return it.

    The job id is readable: load_green_2024-01_3f9c2b7a for the action `load` and the subject `green 2024-01`.

    Raises:
        WarehouseError: the job failed, and a new one would fail, too.
    """
    from google.api_core.exceptions import Conflict

    retry, began = retry_policy(), time.monotonic()
    first_id = "_".join([action, *subject.split(), secrets.token_hex(4)])
    for attempt in itertools.count(1):
        job_id = first_id if attempt == 1 else f"{first_id}_{attempt}"
        try:
            job = begin(*arguments, **options, job_id=job_id, retry=retry)
        except Conflict:
            # An earlier request created the job, but its answer was lost.
            job = client.get_job(job_id, retry=retry)
        # Not `job.result()`: it fetches rows, too, and mistakes a failed job for a failed request.
        pause_s = _FIRST_LOOK_S
        while not job.done(retry=retry):
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
        if not job.error_result:
            return job
        errors = [error for error in (job.errors or []) if isinstance(error, dict)]
        if time.monotonic() - began > _PATIENCE_S or not any(map(_is_transient, errors)):
            error = job.exception()
            reasons = "; ".join(dict.fromkeys(map(_reason, errors))) or str(error)
            page = f"https://console.cloud.google.com/bigquery?project={job.project}&page=queryresults"
            page += f"&j=bq:{job.location or client.location}:{job.job_id}"
            raise WarehouseError(f"{subject}: {reasons}; job {job.job_id}, {page}") from error
        # A random pause, so that many workers do not try again at the same time.
        time.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S) * random.uniform(0.5, 1.5))  # noqa: S311
    raise AssertionError


def _is_transient(error: dict[str, Any]) -> bool:
    message = str(error.get("message"))
    return error.get("reason") in _TRANSIENT_REASONS or any(text in message for text in _TRANSIENT_MESSAGES)


def _reason(error: dict[str, Any]) -> str:
    location = f" (at {error['location']})" if error.get("location") else ""
    return f"{error.get('reason')}: {error.get('message')}{location}"
