"""The exception tree. Errors are also data: they cross processes as `to_dict()` and are rebuilt by `from_dict()`.

A message has subject, what was found, what was allowed, and where to act; all problems, not the first. Code
distinguishes errors by class or `code`, never by text.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

#: The longest message that is shown and kept in the history.
MOST_CHARACTERS = 10_000


def cut(value: str | bytes, most: int = 100, quote: Callable[[object], str] = str) -> str:
    """The value for a message: its first `most` characters, and its length when it is longer."""
    if len(value) <= most:
        return quote(value)
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"{quote(value[:most])}… ({len(value):,} {unit})"


def visible(text: str) -> str:
    """The text with control characters escaped, so that none moves a cursor or changes colours; line ends stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text.expandtabs()
    )


def redact(url: str) -> str:
    """The URL without user, password and query, which may be secret; only its scheme when it is ambiguous."""
    scheme, mark, rest = url.partition("://")
    target = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = target.partition("/")
    if not mark:
        return url
    if not authority:
        return url if scheme == "duckdb" else f"{scheme}://{target}"
    host = authority.rpartition("@")[2]
    if "@" in path and not scheme.lower().startswith("http"):  # A user's name and password with an unescaped slash.
        return f"{scheme}://…"
    if "@" in rest and not re.fullmatch(r"([^:\[\]]+|\[[^\[\]]+\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"


def hide_queries(text: str, *urls: str) -> str:
    """The text, in which the values of the URLs' queries, which may be secret, are replaced."""
    for url in urls:
        for pair in re.split("[&#]", url.partition("?")[2]):
            name, mark, value = pair.partition("=")
            text = text.replace(pair, f"{name}=…") if mark and value else text
    return text


class PipelineError(Exception):
    """The base of every error that this package raises on purpose; `remedy` is the command to run, if one is known."""

    #: The permanent name of the class, for programs.
    code: ClassVar[str] = "error"
    #: Whether the same command may succeed later although nothing was changed.
    retryable: ClassVar[bool] = False
    #: A few words for a table.
    meaning: ClassVar[str] = "unexpected error"

    def __init__(self, message: object = "", *, kind: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.kind = kind or type(self).__name__
        self.remedy = remedy

    def __str__(self) -> str:
        return visible(super().__str__())

    @property
    def words(self) -> str:
        """Class and message; a long message, in which a library quotes something, is cut."""
        return f"{self.kind}: {cut(str(self), MOST_CHARACTERS)}"

    def to_dict(self, most: int = MOST_CHARACTERS) -> dict[str, Any]:
        """The error as plain values, with at most so many characters of its message."""
        text = str(self)
        message = text if len(text) <= most else cut(text, most - 50)  # With its length it must not be cut again.
        names = {"kind": self.kind, "code": self.code, "message": message}
        return {**names, "retryable": self.retryable, "remedy": self.remedy}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PipelineError:
        """The error that `to_dict` described; UnexpectedError for an unknown code."""
        message, remedy = str(values.get("message", "")), str(values.get("remedy", ""))
        error_class = next((each for each in _classes() if each.code == values.get("code")), UnexpectedError)
        return error_class(message, kind=str(values.get("kind", "")), remedy=remedy)


class UsageError(PipelineError):
    """An invalid option, setting or argument: correct the command or luigi.cfg."""

    code, meaning = "usage", "a setting is invalid"


class NotPublished(PipelineError):
    """TLC has not published the month yet: come back later; a scheduled run does not count it as a failure."""

    code, retryable, meaning = "not_published", True, "not published yet"


class SourceError(PipelineError):
    """The site failed after all retries, sent another kind of file, or refuses an old month: come back later."""

    code, retryable, meaning = "source", True, "the source failed"


class SchemaError(PipelineError):
    """Columns or values that no declared era explains: you must decide."""

    code, meaning = "schema", "unknown columns or values"


class CheckFailed(PipelineError):
    """The month failed its checks and was not published: you must decide."""

    code, meaning = "check_failed", "refused by its checks"


class StoreError(PipelineError):
    """The lake could not be read or written."""

    code, meaning = "store", "the lake failed"


class ConcurrentWriteError(StoreError):
    """Another process has published other bytes at the key since the work on it began: run again."""

    code, retryable, meaning = "concurrent_write", True, "changed by another process"


class WarehouseError(PipelineError):
    """The warehouse could not be read or written."""

    code, meaning = "warehouse", "the warehouse failed"


class UnexpectedError(PipelineError):
    """Any other exception, whose class is `kind`, or a report of Luigi itself, for instance about a killed process."""

    code = "unexpected"

    def __init__(self, message: object = "", *, kind: str = "", remedy: str = "") -> None:
        super().__init__(message, kind=kind or "Failed", remedy=remedy)


def all_of(*calls: Callable[[], Any]) -> list[Any]:
    """The results of all calls.

    Raises:
        UsageError: calls raised it; its message has those of all.
    """
    results, problems = list[Any](), list[str]()
    for call in calls:
        try:
            results.append(call())
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("; ".join(problems))
    return results


def as_pipeline_error(error: BaseException, remedy: str = "") -> PipelineError:
    """The error itself, or an UnexpectedError in place of any other exception."""
    if isinstance(error, PipelineError):
        return error
    return UnexpectedError(error, kind=type(error).__name__, remedy=remedy)


def error_from_json(text: str) -> PipelineError:
    """The error whose `to_dict()` is in the JSON; any other text is the message of an UnexpectedError."""
    try:
        return PipelineError.from_dict(json.loads(text))
    except (ValueError, AttributeError):  # A report of Luigi; a traceback was shown when it happened.
        lines = text.strip().splitlines() or ["no reason was given"]
        return UnexpectedError(lines[-1] if lines[0].startswith("Traceback") else "\n".join(lines))


def _classes() -> list[type[PipelineError]]:
    return [*PipelineError.__subclasses__(), *StoreError.__subclasses__()]


def did_you_mean(words: Iterable[object], allowed: Iterable[str]) -> str:
    """The end of a message about unknown words, with the most similar allowed ones; empty when none is similar."""
    known = {word.lower(): word for word in reversed(list(allowed))}
    similar = [known[match] for word in words for match in difflib.get_close_matches(str(word).lower(), known, n=1)]
    return f"; did you mean {' or '.join(dict.fromkeys(similar))}?" if similar else ""
