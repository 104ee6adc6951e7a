"""Reports of ended runs, by a webhook and by e-mail with Luigi's own settings."""

from __future__ import annotations

import html
import logging
import warnings
from logging.handlers import MemoryHandler

import luigi.notifications
import requests
from luigi.configuration import get_config

from pipeline.errors import visible
from pipeline.runs.history import Run, causes, counted_months
from pipeline.source.retries import ca_bundle
from pipeline.tasks.base import log
from pipeline.units import counted, size

_TIMEOUT_S = 10
_MOST = 10


def notify(run: Run, url: str) -> None:
    """Report a run that did something; a report that cannot be sent is only a warning.

    E-mail is sent to [email] receiver, by the method of that section. From a terminal Luigi sends it only with
    `force_send`.
    """
    if not (run.months_done or run.failures or run.errors):
        return
    text = message(run)
    if url:
        # Slack reads <…> as links and as mentions of everyone.
        body = {"text": html.escape(text, quote=False)}
        try:
            answer = requests.post(url, json=body, timeout=_TIMEOUT_S, verify=ca_bundle())
            problem = f"HTTP {answer.status_code} {answer.reason}" if answer.status_code >= 300 else ""
        except OSError as error:  # The base of the errors of requests, which quote the address, a secret.
            problem = type(error).__name__
        if problem:
            log.warning(f"notify_url: {problem}; the report of this run was not delivered")
    receiver = get_config().get("email", "receiver", "")
    if receiver:
        try:
            _send_mail(text, receiver)
        except Exception as error:  # Each method of sending mail has its own errors.
            log.warning(f"[email]: {error}; no mail of this run was sent")


def _send_mail(text: str, receiver: str) -> None:
    """Send it, and raise the error that Luigi only logs, at a level that is off during our runs."""
    subject, rest = text.partition("\n")[::2]
    sender = get_config().get("email", "sender", "luigi-client@localhost")
    logger, handler = luigi.notifications.logger, MemoryHandler(100, flushLevel=logging.CRITICAL + 1)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():  # Luigi warns about its own defaults for mail.
            warnings.filterwarnings("ignore", category=UserWarning, module="luigi")
            luigi.notifications.send_email(subject, rest or subject, sender, [receiver])
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    if handler.buffer:
        raise OSError(handler.buffer[0].getMessage())


def message(run: Run) -> str:
    """The report: a line for the subject, then one for each failure and warning."""
    failed = [failure for failure in run.failures if not failure.waits]
    waiting = len(run.failures) - len(failed)
    parts = [counted(len(run.months_done), "month") + " done"]
    parts += [f"{counted_months((failure.dataset, failure.first_day) for failure in failed)} failed"] if failed else []
    parts += [counted(len(run.errors), "error")] if run.errors else []
    parts += [f"{waiting} not published yet"] if waiting else []
    parts += [counted(len(run.warnings), "warning")] if run.warnings else []
    lines = [f"taxi-pipeline: {', '.join(parts)} ({run.asked})".replace("\n", " ")]
    if run.rows or run.bytes:
        lines.append(f"{run.rows:,} rows conformed, {size(run.bytes)} downloaded")
    lines += [f"ERROR {error}" for error in run.errors[:_MOST]]
    groups = causes(failed)
    lines += [f"FAILED {first.subject}: {first.kind}: {first.error}{others}" for first, others in groups[:_MOST]]
    lines += [f"… and {len(groups) - _MOST} more"] if len(groups) > _MOST else []
    lines += [f"warning: {warning}" for warning in run.warnings[:_MOST]]
    return visible("\n".join(lines))
