"""Where raw files come from: TLC's site, a mirror of its old CSVs, or a folder; `Source.fetch` returns one whole file.

A download is kept in a part file that survives the process, and is resumed (`pipeline.source.transfer`). Its length is
checked, and that it is the kind of file that its name claims.

Sources: the HTTP semantics of RFC 9110 (sections 13 and 14); TLC's CDN answers 403, not 404, for a month it lacks.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from time import monotonic
from typing import AnyStr
from urllib.parse import unquote, urlsplit

import requests

from pipeline.datasets.base import SIDECAR_KEY, Dataset
from pipeline.errors import NotPublished, SourceError, UsageError, redact
from pipeline.months import label
from pipeline.source.parts import Part, Version, parse_record
from pipeline.source.retries import Retries, RetryableError, RetryPolicy, is_valid_url, reason
from pipeline.source.transfer import Answer, Download, Progress, head_url

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Sidecar:
    """Where a raw file came from; stored beside it as JSON."""

    url: str
    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str
    fetched_at: str

    def to_json(self) -> str:
        """One indented object and a line end."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def metadata(self) -> dict[str, str]:
        """The sidecar as metadata of the stored file: one listing then has it for every month."""
        return {SIDECAR_KEY: json.dumps(asdict(self))}

    @classmethod
    def from_json(cls, text: AnyStr, subject: str) -> Sidecar:
        """Read what `to_json` wrote; a SourceError with the subject for any other text."""
        try:
            return parse_record(cls, text)
        except (ValueError, TypeError, RecursionError) as error:
            raise SourceError(f"{subject}: the sidecar is not readable ({error})") from error

    def validate(self, raw: Path, subject: str) -> None:
        """Compare the raw file's hash; a SourceError with the subject when it differs."""
        sha256 = Part(raw).sha256()
        if sha256 != self.sha256:
            raise SourceError(
                f"{subject}: its bytes (sha256 {sha256[:12]}…) are not those of its sidecar ({self.sha256[:12]}…, "
                f"fetched {self.fetched_at})"
            )


@dataclass(frozen=True)
class Source:
    """A place that has raw files. `base` is a URL, a URL template with {dataset} and {file}, or a folder.

    A plain URL has the layout of TLC's site (/trip-data/<file>, /misc/<file>); one that ends in /releases/download that
    of the mirror of TLC's old CSVs (/<dataset>/<file>); a folder has one of these, or no subfolders.
    """

    base: str
    format: str
    lag_months: int
    policy: RetryPolicy

    @property
    def is_folder(self) -> bool:
        """Whether files are copied from a folder."""
        return not _is_url(self.base)

    def file_name(self, dataset: Dataset, month: date | None) -> str:
        """The published name with its ending; the zones are CSV everywhere."""
        return f"{dataset.base_name(month)}.{self.format if month else 'csv'}"

    def url(self, dataset: Dataset, month: date | None) -> str:
        """The URL of the raw file; in a folder, its existing or expected path."""
        file, by_dataset = self.file_name(dataset, month), dataset.name if month else "misc"
        by_site = "trip-data" if month else "misc"
        if self.is_folder:
            paths = [Path(self.base) / folder / file for folder in (by_site, by_dataset, ".")]
            return str(next(filter(_stat, paths), paths[-1]))
        base = self.base.rstrip("/")
        if "{" in base:
            return base.format(dataset=by_dataset, file=file)
        return f"{base}/{by_dataset if base.endswith('/releases/download') else by_site}/{file}"

    def fetch(self, dataset: Dataset, month: date | None, part: Path, progress: Progress | None = None) -> Sidecar:
        """Download the raw file to `part`, continuing its bytes; `part` is whole when this returns.

        Raises:
            NotPublished: the source lacks the month, and it is young.
            SourceError: the source lacks an older month, or failed after all retries.
        """
        subject = label(dataset.name, month)
        if month and self.format == "parquet" and month < (dataset.first_parquet_month or month):
            raise SourceError(
                f"{subject}: exists as CSV only; set [pipeline] source and source_format to a source that has it"
            )
        name, url = self.file_name(dataset, month), self.url(dataset, month)
        from pipeline.raw.reader import verify_head, verify_raw  # It imports pyarrow, for which only a download waits.

        def verified(verify: Callable[..., None], content: Path | bytes) -> None:
            try:
                verify(content, name=name)
            except SourceError as error:
                raise SourceError(str(error).removeprefix(f"{name}: ")) from error

        def check(answer: Answer) -> None:
            verified(verify_raw, part)
            if not answer.whole and name.endswith(".csv"):  # The other formats mark their own end.
                raise SourceError("sent without its length, so it may be incomplete")

        if self.is_folder:
            answer = _copy_file(Path(url), Part(part), subject, check, progress)
        else:
            decode = not name.endswith(".gz")  # Servers often call such a file gzip-encoded by mistake.
            check_head = partial(verified, verify_head)
            answer = Download(url, part, self.policy, subject, check, check_head, decode, progress).run()
        if answer is None:
            raise self._missing(subject, month, redact(url))
        fetched_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Sidecar(redact(url), answer.etag, answer.last_modified, answer.bytes, answer.sha256, fetched_at)

    def name_is_known(self) -> bool:
        """Whether the site's name can be looked up, after all retries; true for a folder, and where a proxy does it."""
        if self.is_folder or requests.utils.get_environ_proxies(self.base):
            return True
        host = urlsplit(self.base).hostname or ""

        def look_up() -> bool:
            try:
                return bool(socket.getaddrinfo(host, None))
            except UnicodeError:
                return True  # The request itself reports it.
            except OSError as error:
                raise RetryableError(reason(error)) from error

        try:
            return Retries(self.policy, host).run(look_up)
        except SourceError:
            return False

    def version(self, dataset: Dataset, month: date | None) -> Version | None:
        """The version that the source has now, None when it has none; a SourceError when it gives no clear answer."""
        url = self.url(dataset, month)
        if self.is_folder:
            state = _stat(Path(url))
            return _version(url, state) if state else None
        decode = not self.file_name(dataset, month).endswith(".gz")
        return head_url(url, self.policy, label(dataset.name, month), decode=decode)

    def is_young(self, month: date, today: date) -> bool:
        """Whether TLC may not have published the month yet."""
        return 12 * (today.year - month.year) + today.month - month.month <= self.lag_months

    def _missing(self, subject: str, month: date | None, url: str) -> NotPublished | SourceError:
        if month and self.is_young(month, date.today()):
            return NotPublished(
                f"{subject}: not published yet at {url}; TLC needs up to {self.lag_months} months, come back later"
            )
        return SourceError(
            f"{subject}: {url} is refused or missing, and is long due; look at [pipeline] source and source_format, "
            "or come back later"
        )


def make_source(base: str, source_format: str, lag_months: int, policy: RetryPolicy) -> Source:
    """The source that the settings describe; a UsageError when `base` is neither a valid URL or template nor a folder.

    The format `auto` is csv.gz for the mirror of old CSVs, Parquet elsewhere.
    """
    base = base.strip()
    if _is_url(base):
        _validate_url(base)
    else:
        base = _validate_folder(base)
    if source_format == "auto":
        source_format = "csv.gz" if base.rstrip("/").endswith("/releases/download") else "parquet"
    return Source(base, source_format, lag_months, policy)


def _is_url(base: str) -> bool:
    return base.lower().startswith(("http://", "https://"))


def _validate_url(base: str) -> None:
    setting = f"[pipeline] source = {redact(base)!r}"
    url = base.replace("{dataset}", "green").replace("{file}", "file")
    if re.search("[{}]", url) or (url != base and "{file}" not in base):
        raise UsageError(f"{setting}: a template needs {{file}}, may have {{dataset}}, and no other braces")
    if not is_valid_url(url):
        raise UsageError(f"{setting}: its host or port is invalid; allowed is http(s)://host or http(s)://host:port")
    if url == base and ("?" in base or "#" in base):
        raise UsageError(f"{setting}: has a ? or #; allowed then is a template such as …/{{file}}?…")


def _validate_folder(base: str) -> str:
    """The absolute path of an existing folder, which may also be written as file:///path."""
    allowed = "allowed are an http(s) address and a folder"
    path = base
    if re.match("file://(localhost)?/", base, re.IGNORECASE):
        path = "/" + unquote(base.split("/", 3)[3])
    elif "://" in base:
        raise UsageError(f"[pipeline] source = {redact(base)!r}: {allowed}")
    if not os.path.isdir(path):  # noqa: PTH112 - takes any text, where Path raises
        raise UsageError(f"[pipeline] source = {base!r}: there is no such folder; {allowed}")
    return str(Path(path).absolute())


def _copy_file(
    path: Path, part: Part, subject: str, check: Callable[[Answer], None], progress: Progress | None
) -> Answer | None:
    """Copy a file of a folder to the part; None when there is no such file. Raises as `Source.fetch`."""
    before = _stat(path)
    if before is None:
        return None
    version, began, size = _version(str(path), before), monotonic(), 0
    try:
        with part.opened(version, restart=True) as target:
            for chunk in _chunks(path):
                target.write(chunk)
                size += len(chunk)
                if size > before.st_size:  # It may grow faster than it is copied.
                    break
                if progress is not None:
                    progress(size, before.st_size, size / max(monotonic() - began, 1e-6))
        after = _stat(path)
        if after is None or not size == after.st_size == before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise SourceError("changed while it was copied; run again when it no longer changes")
        answer = Answer(None, version.last_modified, size, part.sha256())
        check(answer)
    except SourceError as error:
        part.discard()
        raise SourceError(f"{subject}: {path}: {error}") from error
    return answer


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}; look at [pipeline] source") from error


def _stat(path: Path) -> os.stat_result | None:
    """The state of a file; None when there is none. Unlike is_file, it never takes an unreadable file for missing."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; look at [pipeline] source") from error
    return state if stat.S_ISREG(state.st_mode) else None


def _version(path: str, state: os.stat_result) -> Version:
    modified = datetime.fromtimestamp(state.st_mtime, timezone.utc)
    return Version(path, None, format_datetime(modified, usegmt=True), state.st_size)
