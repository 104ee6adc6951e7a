"""Where raw files come from: TLC's site, a mirror of its old CSVs, or a folder; and how one of them comes, whole.

A file is streamed into a part file that outlives the process. A cut connection is taken up again with Range and
If-Range, so the bytes of two versions are never mixed; 5xx, 429, resets, time-outs and bytes that are not what they
claim are tried again with growing waits. What is returned was checked: its length, and that it is what its name says.
The work is done in `pipeline.source.transfer` and `pipeline.source.folder`.

Sources: the HTTP semantics of RFC 9110 (sections 13 and 14); TLC's CDN answers 403, not 404, for a month it lacks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timezone
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any, TypeAlias
from urllib.parse import unquote

from pipeline.datasets.base import SIDECAR_KEY, Dataset
from pipeline.errors import NotPublished, SourceError, UsageError, redact
from pipeline.months import format_month
from pipeline.raw.reader import verify_head, verify_raw
from pipeline.source.folder import copy_file, state_of
from pipeline.source.parts import Part, Version
from pipeline.source.retries import RetryPolicy, can_be_asked, name_is_known
from pipeline.source.transfer import Answer, Progress, fetch_url, head_url

#: Named here because a sidecar's `bytes` hides the type.
_Json: TypeAlias = str | bytes


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

    @property
    def facts(self) -> dict[str, str]:
        """All of it for a store that keeps facts beside a file: then one listing tells it of every month."""
        return {SIDECAR_KEY: json.dumps(asdict(self))}

    @classmethod
    def from_json(cls, text: _Json, subject: str) -> Sidecar:
        """Read what `to_json` wrote; a SourceError names the subject when it is anything else."""
        try:
            sidecar = cls(**json.loads(text))
            texts = (sidecar.url, sidecar.sha256, sidecar.fetched_at, sidecar.etag or "", sidecar.last_modified or "")
            if not all(isinstance(text, str) for text in texts) or not isinstance(sidecar.bytes, int):
                raise TypeError("a value of another kind")
        except (ValueError, TypeError, RecursionError) as error:
            raise SourceError(f"{subject}: the sidecar is not readable ({error})") from error
        return sidecar

    def validate(self, raw: Path, subject: str) -> None:
        """Read the raw file to its end and compare; a SourceError names the subject when it is another one."""
        found = Part(raw).sha256()
        if found != self.sha256:
            raise SourceError(
                f"{subject}: its bytes (sha256 {found[:12]}…) are not those of its sidecar ({self.sha256[:12]}…, "
                f"fetched {self.fetched_at})"
            )


@dataclass(frozen=True)
class Source:
    """A place that has raw files. `base` is a URL, a URL template with {dataset} and {file}, or a folder.

    A bare URL is laid out as TLC's site (/trip-data/<file>, /misc/<file>), one that ends in /releases/download as the
    mirror of TLC's old CSVs (/<dataset>/<file>), a folder as either, or flat.
    """

    base: str
    format: str
    lag_months: int
    policy: RetryPolicy

    @property
    def is_folder(self) -> bool:
        """Whether files are copied from a folder."""
        return not _is_address(self.base)

    def file_name(self, dataset: Dataset, month: date | None) -> str:
        """The published name with its ending; the zones are CSV everywhere."""
        return f"{dataset.base_name(month)}.{self.format if month else 'csv'}"

    def url(self, dataset: Dataset, month: date | None) -> str:
        """The address of the raw file; for a folder, the path at which it is, or would be, found."""
        file, kind = self.file_name(dataset, month), dataset.name if month else "misc"
        if self.is_folder:
            paths = [Path(self.base) / place / file for place in ("trip-data" if month else "misc", kind, ".")]
            return str(next(filter(state_of, paths), paths[-1]))
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

        def verified(verify: Callable[..., None], *arguments: object) -> None:
            try:
                verify(*arguments, name=name)
            except SourceError as error:
                raise SourceError(str(error).removeprefix(f"{name}: ")) from error

        def check(answer: Answer) -> None:
            verified(verify_raw, part)
            if not answer.whole and name.endswith(".csv"):  # The other kinds have an end of their own.
                raise SourceError("sent without its length, so nothing says whether this is all of it")

        if self.is_folder:
            answer = copy_file(Path(url), Part(part), subject, check=check, progress=progress)
        else:
            # What is named .gz is often called gzip-encoded by mistake.
            options: dict[str, Any] = {"check": check, "decode": not name.endswith(".gz"), "progress": progress}
            look = partial(verified, verify_head)
            answer = fetch_url(url, part, self.policy, subject, look=look, **options)
        if answer is None:
            raise self._lacking(subject, month, url)
        fetched_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Sidecar(redact(url), answer.etag, answer.last_modified, answer.bytes, answer.sha256, fetched_at)

    def name_is_known(self) -> bool:
        """Whether the site's name can be looked up, after all retries; true for a folder."""
        return self.is_folder or name_is_known(self.base, self.policy)

    def has(self, dataset: Dataset, month: date) -> bool:
        """Whether the source has the month now: one HEAD request.

        Raises:
            SourceError: it answers neither yes nor no.
        """
        return self.version(dataset, month) is not None

    def version(self, dataset: Dataset, month: date | None) -> Version | None:
        """What the source says of the raw file as it is now, by one HEAD request; None when it has none.

        Raises:
            SourceError: it answers neither yes nor no.
        """
        url = self.url(dataset, month)
        if self.is_folder:
            state = state_of(Path(url))
            if state is None:
                return None
            modified = datetime.fromtimestamp(state.st_mtime, timezone.utc)
            return Version(url, None, format_datetime(modified, usegmt=True), state.st_size)
        decode = not self.file_name(dataset, month).endswith(".gz")
        return head_url(url, self.policy, _subject(dataset, month), decode=decode)

    def is_young(self, month: date, today: date) -> bool:
        """Whether the month may still be unpublished without anything being wrong."""
        return 12 * (today.year - month.year) + today.month - month.month <= self.lag_months

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


def make_source(base: str, source_format: str, lag_months: int, policy: RetryPolicy) -> Source:
    """The source that the settings describe; `auto` takes csv.gz from the mirror of old CSVs, Parquet elsewhere.

    Raises:
        UsageError: the base is neither an http(s) address nor a folder, or its template cannot be filled.
    """
    base = base.strip()
    if _is_address(base):
        _refuse_bad_address(base)
    else:
        base = _folder(base)
    if source_format == "auto":
        source_format = "csv.gz" if base.rstrip("/").endswith("/releases/download") else "parquet"
    return Source(base, source_format, lag_months, policy)


def _is_address(base: str) -> bool:
    return base.lower().startswith(("http://", "https://"))


def _refuse_bad_address(base: str) -> None:
    named, template = f"[pipeline] source = {redact(base)!r}", "{" in base or "}" in base
    try:
        fields = {(name, spec, kind) for _, name, spec, kind in Formatter().parse(base) if name is not None}
    except ValueError:
        fields = {("", "", None)}
    if template and not {("file", "", None)} <= fields <= {("file", "", None), ("dataset", "", None)}:
        raise UsageError(f"{named}: a template needs {{file}}, may have {{dataset}}, and no other braces")
    if not can_be_asked(base.format(dataset="green", file="file") if template else base):
        raise UsageError(f"{named}: its host or port cannot be; write it as http(s)://host or http(s)://host:port")
    if not template and ("?" in base or "#" in base):
        raise UsageError(f"{named}: has a ? or #, so say where the file's name goes: …/{{file}}?…")


def _folder(base: str) -> str:
    """The absolute path of a folder that was written as a path or as a file:// address."""
    place = base
    if base.lower().startswith("file://"):
        host, slash, path = base[len("file://") :].partition("/")
        place = unquote(slash + path) if host in ("", "localhost") else ""
    elif "://" in base:
        raise UsageError(f"[pipeline] source = {redact(base)!r}: allowed are an http(s) address and a folder")
    place = os.path.expanduser(place)  # noqa: PTH111 - of any text, where Path raises
    if not os.path.isdir(place):  # noqa: PTH112 - the same
        raise UsageError(
            f"[pipeline] source = {base!r}: there is no such folder; allowed are an http(s) address and a folder"
        )
    return str(Path(place).absolute())


def _subject(dataset: Dataset, month: date | None) -> str:
    return f"{dataset.name} {format_month(month)}" if month else dataset.name
