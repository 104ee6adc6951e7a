"""Where raw files come from: TLC's site, a mirror of its old CSVs, or a folder; and one file over HTTP, whole.

A file is streamed into a part file that outlives the process. A cut connection is taken up again with Range and
If-Range, so the bytes of two versions are never mixed; 5xx, 429, resets, time-outs and bytes that are not what they
claim are tried again with growing waits. What is returned was checked: its length, and that it is what its name says.

Sources: the HTTP semantics of RFC 9110 (sections 13 and 14); TLC's CDN answers 403, not 404, for a month it lacks.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.datasets.base import Dataset
from pipeline.errors import NotPublished, SourceError, UsageError
from pipeline.months import add_months, format_month
from pipeline.parts import Part
from pipeline.readers import verify_raw
from pipeline.transfer import Answer, Politeness, Progress, fetch_url, head_url, redact

TLC_SITE = "https://d37ci6vzurychx.cloudfront.net"
FORMATS = ("parquet", "csv", "csv.gz")


@dataclass(frozen=True)
class Sidecar:
    """Where a raw file came from; lies beside it as JSON."""

    url: str
    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str
    fetched_at: str

    def to_json(self) -> str:
        """One indented object, a line at the end."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, subject: str) -> Sidecar:
        """Read what `to_json` wrote; a SourceError names the subject when it is anything else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise SourceError(
                f"{subject}: the sidecar is not readable ({error}); delete both to fetch again"
            ) from error


@dataclass(frozen=True)
class Source:
    """A place that has raw files. `base` is a URL, a URL template with {dataset} and {file}, or a folder.

    A bare URL is laid out as TLC's site (/trip-data/<file>, /misc/<file>), one that ends in /releases/download as the
    mirror of TLC's old CSVs (/<dataset>/<file>), a folder as either, or flat.
    """

    base: str
    format: str
    lag_months: int
    politeness: Politeness

    @property
    def is_folder(self) -> bool:
        """Whether files are copied from a folder."""
        return urlsplit(self.base).scheme not in ("http", "https")

    def file_name(self, dataset: Dataset, month: date | None) -> str:
        """The published name with its ending; the zones are CSV everywhere."""
        return f"{dataset.base_name(month)}.{self.format if month else 'csv'}"

    def url(self, dataset: Dataset, month: date | None) -> str:
        """The address of the raw file; for a folder, the path at which it is, or would be, found."""
        file, kind = self.file_name(dataset, month), dataset.name if month else "misc"
        if self.is_folder:
            folder = Path(unquote(urlsplit(self.base).path) if self.base.startswith("file://") else self.base)
            places = ["trip-data" if month else "misc", kind, "."]
            found = [folder / place / file for place in places if (folder / place / file).is_file()]
            return str(found[0] if found else folder / file)
        base = self.base.rstrip("/")
        if "{" in base:
            return base.format(dataset=kind, file=file)
        if base.endswith("/releases/download"):
            return f"{base}/{kind}/{file}"
        return f"{base}/{'trip-data' if month else 'misc'}/{file}"

    def fetch(self, dataset: Dataset, month: date | None, part: Path, progress: Progress | None = None) -> Sidecar:
        """Bring the raw file to `part`, going on from what is there; `part` is whole when this returns.

        Raises:
            NotPublished: the source lacks the month, and it is young.
            SourceError: it lacks a month that is long due, or misbehaved after all retries.
        """
        subject = _subject(dataset, month)
        if month and self.format == "parquet" and month < (dataset.first_parquet_month or month):
            raise SourceError(
                f"{subject}: exists as CSV only; set [pipeline] source and source_format to a place that has it"
            )
        name, url = self.file_name(dataset, month), self.url(dataset, month)
        if self.is_folder:
            answer = _copy(Path(url), part, subject)
            if answer is not None:
                verify_raw(part, name=name)
        else:
            answer = fetch_url(
                url, part, self.politeness, subject, check=lambda path: verify_raw(path, name=name), progress=progress
            )
        if answer is None:
            raise self._lacking(subject, month, url)
        fetched_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Sidecar(redact(url), answer.etag, answer.last_modified, answer.bytes, answer.sha256, fetched_at)

    def has(self, dataset: Dataset, month: date) -> bool:
        """Whether the source has the month now: one HEAD request.

        Raises:
            SourceError: it answers neither yes nor no.
        """
        url = self.url(dataset, month)
        return Path(url).is_file() if self.is_folder else head_url(url, self.politeness, _subject(dataset, month))

    def is_young(self, month: date, today: date) -> bool:
        """Whether the month may still be unpublished without anything being wrong."""
        return month >= add_months(today.replace(day=1), -self.lag_months)

    def _lacking(self, subject: str, month: date | None, url: str) -> NotPublished | SourceError:
        where = redact(url)
        if month and self.is_young(month, date.today()):
            return NotPublished(
                f"{subject}: not published yet at {where}; TLC needs up to {self.lag_months} months, come back later"
            )
        return SourceError(
            f"{subject}: {where} is refused or absent though long due; look at [pipeline] source and source_format, "
            "or come back later"
        )


def make_source(base: str, source_format: str, lag_months: int, politeness: Politeness) -> Source:
    """The source that the settings describe; `auto` takes csv.gz from the mirror of old CSVs, Parquet elsewhere.

    Raises:
        UsageError: the base is neither an http(s) address nor a folder, or its template cannot be filled.
    """
    scheme = urlsplit(base).scheme if "://" in base else ""
    if scheme not in ("", "http", "https", "file") or not base.strip():
        raise UsageError(f"[pipeline] source = {redact(base)!r}: allowed are an http(s) address and a folder")
    if "{" in base:
        try:
            base.format(dataset="", file="")
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(
                f"[pipeline] source = {redact(base)!r}: only {{dataset}} and {{file}} can stand in it"
            ) from error
    if not scheme and not Path(base).expanduser().is_dir():
        raise UsageError(
            f"[pipeline] source = {base!r}: there is no such folder; allowed are an http(s) address and a folder"
        )
    if source_format == "auto":
        source_format = "csv.gz" if base.rstrip("/").endswith("/releases/download") else "parquet"
    return Source(base if scheme else str(Path(base).expanduser()), source_format, lag_months, politeness)


def _subject(dataset: Dataset, month: date | None) -> str:
    return f"{dataset.name} {format_month(month)}" if month else dataset.name


def _copy(path: Path, part: Path, subject: str) -> Answer | None:
    """Copy from a folder; None when it is not there."""
    if not path.is_file():
        return None
    try:
        shutil.copyfile(path, part)
        modified = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    except OSError as error:
        raise SourceError(f"{subject}: {path} cannot be copied: {error.strerror}") from error
    copy = Part(part)
    return Answer(None, format_datetime(modified, usegmt=True), copy.size, copy.sha256())
