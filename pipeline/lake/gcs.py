"""A lake in a bucket of Google Cloud Storage.

An object appears whole, with the last byte of its upload. An upload requires the generation that existed when its block
began (mostly none): of two writers the second gets an error, unless both wrote the same bytes. Bytes are verified by
crc32c in both directions. Drafts and parts of downloads are on the local disk.

Source: https://cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.disk import translate_disk_errors
from pipeline.errors import ConcurrentWriteError, StoreError, UsageError
from pipeline.lake import folder_of
from pipeline.lake.drafts import Drafts
from pipeline.lake.google_cloud import storage_client, translated
from pipeline.lake.planning import TtlCache, planning

#: Bytes per request of an upload, each of which can be retried; a multiple of 256 KiB.
_CHUNK_BYTES = 32 << 20
#: Objects per page of a listing; Cloud Storage allows no more.
_PAGE = 1000
#: How long the library retries one call, and how long it waits for bytes.
_DEADLINE_S = 300
_TIMEOUT_S = 60
_SETTING = "[pipeline] scratch"
_TYPES = {".parquet": "application/vnd.apache.parquet", ".json": "application/json", ".csv": "text/csv"}


def open_url(url: str, scratch: Path) -> GcsStore:
    """The store at gs://bucket/prefix, with work in progress in `scratch`; a UsageError for an invalid name."""
    bucket, _, prefix = url.partition("://")[2].partition("/")
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        return GcsStore(bucket, prefix, scratch)
    raise UsageError(f"[pipeline] lake = {url!r}: {bucket!r} is not a bucket name; write gs://bucket/prefix")


class GcsStore:
    """A lake below `prefix` in a bucket; `scratch` is a folder of this machine for work in progress."""

    def __init__(self, bucket: str, prefix: str, scratch: Path) -> None:
        self._bucket_name, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._drafts = Drafts(scratch, _SETTING)
        self._listings = defaultdict[str, TtlCache[dict[str, GcsEntry]]](TtlCache)

    @property
    def location(self) -> str:
        """gs://bucket/prefix."""
        return f"gs://{self._bucket_name}/{self._prefix}".rstrip("/")

    def exists(self, key: str) -> bool:
        """Whether the object exists; a plan is answered from one listing of its folder."""
        if planning():
            folder = folder_of(key)
            return key in self._listings[folder].get(lambda: self.entries(folder))
        with self.translate_errors(key):
            return bool(self._blob(key).exists(**_options()))

    def entries(self, prefix: str) -> dict[str, GcsEntry]:
        """One listing, in pages, with the metadata of each object."""
        fields = "items(name,size,crc32c,generation,metadata),nextPageToken"
        with self.translate_errors(prefix):
            blobs = storage_client().list_blobs(
                self._bucket_name, prefix=self._prefix + prefix, page_size=_PAGE, fields=fields, **_options()
            )
            return {entry.key: entry for entry in map(self._entry, blobs)}

    def entry(self, key: str) -> GcsEntry:
        """The object at the key."""
        if (blob := self._get(key)) is None:
            raise StoreError(f"{key}: not in the lake {self.location}; run the step that makes it")
        return self._entry(blob)

    def delete(self, key: str) -> None:
        """Delete the object."""
        from google.api_core.exceptions import NotFound

        self._listings.clear()
        with self.translate_errors(key), suppress(NotFound):
            self._blob(key).delete(**_options())

    @contextmanager
    def publish(self, key: str, metadata: Mapping[str, str] | None = None) -> Iterator[Path]:
        """Yield a draft on the local disk; a clean exit uploads it, or raises ConcurrentWriteError."""
        existing = self._get(key)
        with self._translate_disk_errors(key), self._drafts.own_folder() as folder:
            draft = folder / Path(key).name
            yield draft
            with self.translate_errors(key):
                self._upload(draft, key, existing.generation if existing else 0, metadata or {})
        self._listings.clear()

    def part(self, key: str, *, wait_s: float) -> AbstractContextManager[Path]:
        """Yield the path of a part file on the local disk; another machine has its own."""
        return self._drafts.part(key, wait_s=wait_s)

    def sweep(self) -> None:
        """Delete what killed processes of this machine left behind."""
        with self._translate_disk_errors("drafts"):
            self._drafts.sweep(self.exists)

    @contextmanager
    def download(self, blob: Any) -> Iterator[Path]:
        """Yield a local copy of exactly this generation of the object, verified by its crc32c."""
        key = blob.name.removeprefix(self._prefix)
        with self._drafts.own_folder() as folder:
            path = folder / Path(key).name
            with self._translate_disk_errors(key), self.translate_errors(key):
                blob.download_to_filename(
                    str(path), if_generation_match=blob.generation, checksum="crc32c", **_options()
                )
            yield path

    def _upload(self, draft: Path, key: str, generation: int, metadata: Mapping[str, str]) -> None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(key)
        blob.chunk_size = _CHUNK_BYTES
        blob.metadata = dict(metadata) or None
        try:
            blob.upload_from_filename(
                str(draft),
                content_type=_TYPES.get(draft.suffix, "application/octet-stream"),
                if_generation_match=generation,
                checksum="crc32c",
                **_options(),
            )
        except PreconditionFailed as error:
            # When the last response of an upload was lost, its retry finds its own object.
            now = self._get(key)
            if now is None or now.crc32c != _crc32c(draft) or now.size != draft.stat().st_size:
                problem = f"another process has written other bytes to it in {self.location} since this run began"
                raise ConcurrentWriteError(f"{key}: {problem}; run again") from error

    def _blob(self, key: str) -> Any:
        return storage_client().bucket(self._bucket_name).blob(self._prefix + key)

    def _get(self, key: str) -> Any:
        with self.translate_errors(key):
            return storage_client().bucket(self._bucket_name).get_blob(self._prefix + key, **_options())

    def _entry(self, blob: Any) -> GcsEntry:
        key, uri = blob.name.removeprefix(self._prefix), f"gs://{self._bucket_name}/{blob.name}"
        return GcsEntry(key, blob.size, uri, f"{blob.size}-{blob.crc32c}", dict(blob.metadata or {}), self, blob)

    @contextmanager
    def translate_errors(self, key: str) -> Iterator[None]:
        """Turn what Google's library raises into a StoreError."""
        from google.api_core.exceptions import NotFound, PreconditionFailed, from_http_response
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        roles = f"roles/storage.objectUser on the bucket gs://{self._bucket_name} to the account"
        with translated(StoreError, f"{key} in {self.location}", roles):
            try:
                yield
            except (NotFound, PreconditionFailed) as error:
                problem = f"was deleted or replaced in {self.location}; run again"
                if isinstance(error, NotFound) and "No such object" not in str(error):
                    command = f"gcloud storage buckets create gs://{self._bucket_name}"
                    problem = f"not found in {self.location}; if there is no such bucket, make it with: {command}"
                raise StoreError(f"{key}: {problem}") from error
            except DataCorruption as error:
                raise StoreError(f"{key} in {self.location}: bytes with another checksum arrived; run again") from error
            except InvalidResponse as error:
                raise from_http_response(error.response) from error

    def _translate_disk_errors(self, key: str) -> AbstractContextManager[None]:
        return translate_disk_errors(f"{key}: work in progress in {self._drafts.root} failed", _SETTING)


@dataclass(frozen=True)
class GcsEntry:
    """An object of the bucket. Its fingerprint is its length and the crc32c that Google keeps of it."""

    key: str
    bytes: int
    uri: str
    fingerprint: str
    metadata: Mapping[str, str]
    _store: GcsStore
    _blob: Any

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The object, read in pieces of 1 MiB."""
        blob = self._blob.open("rb", chunk_size=1 << 20, if_generation_match=self._blob.generation)
        with self._store.translate_errors(self.key), blob as file:
            yield file

    def open_local(self) -> AbstractContextManager[Path]:
        """A verified copy on the local disk, deleted after the block."""
        return self._store.download(self._blob)


def _options() -> dict[str, Any]:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return {"retry": DEFAULT_RETRY.with_timeout(_DEADLINE_S), "timeout": _TIMEOUT_S}


def _crc32c(path: Path) -> str:
    """The checksum as Cloud Storage writes it: base64 of the four bytes."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        deque(checksum.consume(file, 1 << 20), maxlen=0)
    return base64.b64encode(checksum.digest()).decode()
