"""The end of a run, told to people who are not looking: by a webhook, and by e-mail through Luigi's own settings."""

from __future__ import annotations

import html
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Tell of a run that did something; that nobody could be told is a warning, and changes nothing else.

    E-mail goes to [email] receiver, by whatever means the section says; with `force_send` unset Luigi sends none from a
    terminal.
    """
    if not (run.months_done or run.failures or run.errors):
        return
    text = message(run)
    if url:
        try:
            # Of the answer nothing is wanted but its status; the address is a secret, so that no error may quote it.
            # Slack reads <…> as links and mentions of everyone.
            body = {"text": html.escape(text, quote=False)}
            answer = requests.post(url, json=body, timeout=_TIMEOUT_S, verify=ca_bundle())
            if answer.status_code >= 300:
                log.warning(f"notify_url: HTTP {answer.status_code} {answer.reason}; nobody was told of this run there")
        except OSError as error:  # Those of requests, and a bundle of certificates that is not there.
            log.warning(f"notify_url: {type(error).__name__}; nobody was told of this run there")
    receiver = get_config().get("email", "receiver", "")
    if receiver:
        subject, rest = text.partition("\n")[::2]
        try:
            sender = get_config().get("email", "sender", "luigi-client@localhost")
            with _errors_raised():
                luigi.notifications.send_email(subject, rest or subject, sender, [receiver])
        except Exception as error:  # Whatever a way to send mail lacks: a server, a library, a setting.
            log.warning(f"[email]: {error}; no mail was sent of this run")


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Raise what Luigi only logs, and logs at a level that is off during our runs: that a mail was not sent."""
    logger, said = luigi.notifications.logger, list[str]()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, level = Listener(logging.ERROR), logger.level
    logger.addHandler(listener)
    logger.setLevel(min(level or logging.ERROR, logging.ERROR))
    try:
        with warnings.catch_warnings():  # Luigi's own defaults for mail are not to Luigi's taste.
            warnings.filterwarnings("ignore", category=UserWarning, module="luigi")
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(listener)
    if said:
        raise OSError(said[0])


def message(run: Run) -> str:
    """What was done, failed, warned: a line for the subject, then one for each failure and warning."""
    failed = [failure for failure in run.failures if not failure.waits]
    waiting = len(run.failures) - len(failed)
    parts = [counted(len(run.months_done), "month") + " done"]
    parts += [f"{counted_months((of.dataset, of.month or None) for of in failed)} failed"] if failed else []
    parts += [counted(len(run.errors), "error")] if run.errors else []
    parts += [f"{waiting} not published yet"] if waiting else []
    parts += [counted(len(run.warnings), "warning")] if run.warnings else []
    lines = [f"taxi-pipeline: {', '.join(parts)} ({run.asked})".replace("\n", " ")]
    if run.rows or run.bytes:
        lines.append(f"{run.rows:,} rows conformed, {size(run.bytes)} downloaded")
    lines += [f"ERROR {error}" for error in run.errors[:_MOST]]
    found = causes(failed)
    lines += [f"FAILED {of.step} {of.dataset} {of.month}: {of.kind}: {of.error}{same}" for of, same in found[:_MOST]]
    lines += [f"… and {len(found) - _MOST} more"] if len(found) > _MOST else []
    lines += [f"warning: {warning}" for warning in run.warnings[:_MOST]]
    return visible("\n".join(lines))
