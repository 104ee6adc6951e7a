"""A lake in a bucket of Google Cloud Storage.

An object appears whole or not at all: with the last byte of its upload. Each upload is bound to the generation that was
there when its block began (none, mostly), so that of two writers one is told; where the other's object has the same
bytes, both have won. Bytes are verified by crc32c both ways. Drafts and parts of downloads lie on the local disk.

Source: https://cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.disk import explained
from pipeline.errors import ConcurrentWriteError, StoreError
from pipeline.lake.drafts import Drafts
from pipeline.lake.google_cloud import storage_client, translated
from pipeline.lake.keys import folder_of
from pipeline.lake.planning import TtlCache, planning

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Bucket

#: An upload goes in requests of so many bytes, each of which can be tried again; a multiple of 256 KiB.
_CHUNK_BYTES = 32 << 20
#: From this size on a download goes in several ranges at once.
_LARGE_BYTES = 64 << 20
_PARALLEL = 4
#: How many objects a listing gives at once; Cloud Storage allows no more.
_PAGE = 1000
#: How long the library tries one call again, and how long it waits for bytes.
_DEADLINE_S = 300
_TIMEOUT_S = 60
_SETTING = "[pipeline] scratch"
_TYPES = {".parquet": "application/vnd.apache.parquet", ".json": "application/json", ".csv": "text/csv"}


class GcsStore:
    """A lake below `prefix` in a bucket; `scratch` is a folder of this machine for work in progress."""

    def __init__(self, bucket: str, prefix: str, scratch: Path) -> None:
        self._bucket_name, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.drafts = Drafts(scratch, _SETTING)
        self._listings = defaultdict[str, TtlCache[set[str]]](TtlCache)

    def __repr__(self) -> str:
        return f"GcsStore({self.location!r})"

    @property
    def location(self) -> str:
        """gs://bucket/prefix."""
        return f"gs://{self._bucket_name}/{self._prefix}".rstrip("/")

    def exists(self, key: str) -> bool:
        """Whether the object is there; a plan is answered from one listing of its folder."""
        if planning():
            folder = folder_of(key)
            return key in self._listings[folder].get(lambda: self.keys(folder))
        with self.faults(key):
            return bool(self._blob(key).exists(retry=self._retry(), timeout=_TIMEOUT_S))

    def keys(self, prefix: str) -> set[str]:
        """One listing, in pages."""
        return {blob.name.removeprefix(self._prefix) for blob in self._list(prefix, "name")}

    def entries(self, prefix: str) -> dict[str, GcsEntry]:
        """One listing, in pages, with all that is known of each object."""
        listed = self._list(prefix, "name,size,crc32c,generation,metadata")
        return {entry.key: entry for entry in map(self._entry, listed)}

    def _list(self, prefix: str, fields: str) -> list[Any]:
        with self.faults(prefix):
            return list(
                storage_client().list_blobs(
                    self._bucket_name,
                    prefix=self._prefix + prefix,
                    page_size=_PAGE,
                    fields=f"items({fields}),nextPageToken",
                    retry=self._retry(),
                    timeout=_TIMEOUT_S,
                )
            )

    def entry(self, key: str) -> GcsEntry:
        """The object at the key."""
        with self.faults(key):
            blob = self._bucket().get_blob(self._prefix + key, retry=self._retry(), timeout=_TIMEOUT_S)
        if blob is None:
            raise StoreError(f"{key}: not in the lake {self.location}; run the step that makes it")
        return self._entry(blob)

    def _entry(self, blob: Any) -> GcsEntry:
        key, uri = blob.name.removeprefix(self._prefix), f"gs://{self._bucket_name}/{blob.name}"
        return GcsEntry(key, blob.size, uri, f"{blob.size}-{blob.crc32c}", self, blob)

    def delete(self, key: str) -> None:
        """Take the object away."""
        from google.api_core.exceptions import NotFound

        self._listings.clear()
        with self.faults(key), suppress(NotFound):
            self._blob(key).delete(retry=self._retry(), timeout=_TIMEOUT_S)

    @contextmanager
    def publish(self, key: str, facts: Mapping[str, str] | None = None) -> Iterator[Path]:
        """Yield a draft on the local disk; a clean exit uploads it, with `facts` as the object's metadata.

        Raises:
            ConcurrentWriteError: meanwhile somebody else has published other bytes at the key.
        """
        with self.faults(key):
            there = self._bucket().get_blob(self._prefix + key, retry=self._retry(), timeout=_TIMEOUT_S)
        with self._local_faults(key), self.drafts.own_folder() as folder:
            draft = folder / Path(key).name
            yield draft
            if not draft.is_file():
                raise StoreError(f"{key}: cannot be written to the lake {self.location}: no draft was made")
            with self.faults(key):
                self._upload(draft, key, there.generation if there else 0, facts or {})
        self._listings.clear()

    def part(self, key: str, *, wait_s: float) -> AbstractContextManager[Path]:
        """The part file lies on the local disk; another machine has one of its own."""
        return self.drafts.part(key, wait_s=wait_s)

    def sweep(self) -> None:
        """Remove what killed processes of this machine left behind."""
        with self._local_faults("drafts"):
            self.drafts.sweep(self.exists)

    def download(self, blob: Blob, path: Path) -> None:
        """Bring this very generation of the object to `path`, verified by its crc32c."""
        from google.cloud.storage import transfer_manager

        key = blob.name.removeprefix(self._prefix)
        only = {"if_generation_match": blob.generation, "retry": self._retry(), "timeout": _TIMEOUT_S}
        with self.faults(key), self._local_faults(key):
            if blob.size < _LARGE_BYTES:
                blob.download_to_filename(str(path), checksum="crc32c", **only)
            else:
                transfer_manager.download_chunks_concurrently(
                    blob, str(path), _CHUNK_BYTES, download_kwargs=only, worker_type="thread", max_workers=_PARALLEL
                )

    def _upload(self, draft: Path, key: str, generation: int, facts: Mapping[str, str]) -> None:
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(key)
        blob.chunk_size = _CHUNK_BYTES
        blob.metadata = dict(facts) or None
        try:
            blob.upload_from_filename(
                str(draft),
                content_type=_TYPES.get(draft.suffix, "application/octet-stream"),
                if_generation_match=generation,
                checksum="crc32c",
                retry=self._retry(),
                timeout=_TIMEOUT_S,
            )
        except PreconditionFailed as error:
            # An upload whose last answer was lost meets its own object here, too.
            now = self._bucket().get_blob(self._prefix + key, retry=self._retry(), timeout=_TIMEOUT_S)
            if now is None or now.crc32c != _crc32c(draft) or now.size != draft.stat().st_size:
                raise ConcurrentWriteError(
                    f"{key}: somebody else has changed it in {self.location} since this run began to make it, and to "
                    "other bytes; run again"
                ) from error

    def _bucket(self) -> Bucket:
        return storage_client().bucket(self._bucket_name)

    def _blob(self, key: str) -> Blob:
        return self._bucket().blob(self._prefix + key)

    @staticmethod
    def _retry() -> Any:
        from google.cloud.storage.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(_DEADLINE_S)

    @contextmanager
    def faults(self, key: str) -> Iterator[None]:
        """Turn what Google's library raises into a StoreError."""
        from google.api_core.exceptions import NotFound, PreconditionFailed, from_http_response
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

        roles = f"roles/storage.objectUser on the bucket gs://{self._bucket_name} to the account"
        with translated(StoreError, f"{key} in {self.location}", roles):
            try:
                yield
            except (NotFound, PreconditionFailed) as error:
                if isinstance(error, PreconditionFailed) or "No such object" in str(error):
                    raise StoreError(f"{key}: has gone from {self.location}, or was replaced; run again") from error
                raise StoreError(
                    f"{key}: not found in {self.location}; is there a bucket of this name? Make one with: "
                    f"gcloud storage buckets create gs://{self._bucket_name}"
                ) from error
            except DataCorruption as error:
                raise StoreError(
                    f"{key} in {self.location}: the bytes that arrived have another checksum; run again"
                ) from error
            except InvalidResponse as error:
                raise from_http_response(error.response) from error

    @contextmanager
    def _local_faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except ConnectionError:
            raise
        except OSError as error:
            raise StoreError(
                f"{key}: cannot be worked on in {self.drafts.root}: {explained(error, _SETTING)}"
            ) from error


@dataclass(frozen=True)
class GcsEntry:
    """An object of the bucket. Its fingerprint is its length and the crc32c that Google keeps of it."""

    key: str
    bytes: int
    uri: str
    fingerprint: str
    _store: GcsStore
    _blob: Any

    @property
    def facts(self) -> dict[str, str]:
        """The object's metadata."""
        return dict(self._blob.metadata or {})

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The object, read in pieces of 1 MiB."""
        only = {"if_generation_match": self._blob.generation}
        with self._store.faults(self.key), self._blob.open("rb", chunk_size=1 << 20, **only) as file:
            yield file

    @contextmanager
    def open_local(self) -> Iterator[Path]:
        """A verified copy on the local disk, gone after the block."""
        with self._store.drafts.own_folder() as folder:
            path = folder / Path(self.key).name
            self._store.download(self._blob, path)
            yield path


def _crc32c(path: Path) -> str:
    """The checksum that Cloud Storage keeps of every object, as it writes it: base64 of the four bytes."""
    import google_crc32c

    checksum = google_crc32c.Checksum()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
    return base64.b64encode(checksum.digest()).decode()
