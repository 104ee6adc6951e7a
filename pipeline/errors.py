"""Everything that can go wrong, as one tree, told apart by what a person should do about it.

PipelineError
├── UsageError        an option, a setting or an argument that cannot be: mend the command or luigi.cfg
├── NotPublished      TLC has no such month yet: come back later; not a failure of a scheduled run
├── SourceError       the site misbehaved after all retries, sent what is not a trips file, or refuses a month
│                     that is long due: come back later
├── SchemaError       columns or values that no declared era explains: a person must decide
├── CheckFailed       the month is not believable: a person must decide
├── StoreError        the lake
│   └── Overtaken     somebody else has published other bytes meanwhile: run again
└── WarehouseError    the warehouse

A message has subject, what was found, what was allowed, and where to act; all problems, not the first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable


def cut(value: str | bytes, most: int = 100, quote: Callable[[object], str] = str) -> str:
    """The value for a message: `most` characters of it and its length when it is longer."""
    if len(value) <= most:
        return quote(value)
    unit = "bytes" if isinstance(value, bytes) else "characters"
    return f"{quote(value[:most])}… ({len(value):,} {unit})"


def visible(text: str) -> str:
    """The text with control characters as escapes, so that none moves a cursor or changes colours; lines stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text.expandtabs()
    )


def redact(url: str) -> str:
    """The URL without what may be secret in it: user, password, query; no more than its scheme when it is unclear."""
    scheme, mark, rest = url.partition("://")
    target = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = target.partition("/")
    if not mark:
        return url
    if not authority:
        return url if scheme == "duckdb" else f"{scheme}://{target}"
    host = authority.rpartition("@")[2]
    if "@" in path and not scheme.lower().startswith("http"):  # A user's name and password with a raw slash in it.
        return f"{scheme}://…"
    if "@" in rest and not re.fullmatch(r"([^:\[\]]+|\[[^\[\]]+\])(:\d*)?", host):
        return f"{scheme}://…"
    return f"{scheme}://{host}{slash}{path}"


class PipelineError(Exception):
    """The base of every error that this package raises on purpose; its text is the whole message.

    A message quotes servers, files and settings: it is text, whatever they hold.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


class UsageError(PipelineError):
    """An option, a setting or an argument that cannot be."""


class NotPublished(PipelineError):
    """TLC has no such month yet; a scheduled run does not count it as a failure."""


class SourceError(PipelineError):
    """The site misbehaved after all retries, or what it sent is not what its name claims."""


class SchemaError(PipelineError):
    """Columns or values that no declared era explains."""


class CheckFailed(PipelineError):
    """The month is not believable; nothing of it was published."""


class StoreError(PipelineError):
    """The lake could not be read or written."""


class Overtaken(StoreError):
    """Somebody else has published other bytes at the key since the work on it began."""


class WarehouseError(PipelineError):
    """The warehouse could not be read or written."""


def did_you_mean(words: Iterable[object], allowed: Iterable[str]) -> str:
    """The end of a message about unknown words: the most similar allowed ones; empty when none is similar."""
    known = list(allowed)
    near = [found for word in words for found in difflib.get_close_matches(str(word).lower(), known, n=1)]
    return f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
