"""The gateway that adds to fake-gcs-server 1.54 what it lacks of Cloud Storage.

- If a chunk of a resumable upload is sent again, because its answer was lost, the emulator appends it again; Cloud
  Storage ignores bytes that it has. A status check ends the upload with an empty object; Cloud Storage answers how many
  bytes it has. A finished upload is forgotten; Cloud Storage answers its last chunk again as before.
  https://cloud.google.com/storage/docs/performing-resumable-uploads#status-check
- `ifGenerationMatch` is compared when a resumable upload begins, but not when it ends, so two writers both succeed;
  and it is not compared when an object is deleted. https://cloud.google.com/storage/docs/request-preconditions

Works without the gateway: whole and resumable uploads, preconditions of whole uploads, crc32c, generations, custom
metadata, content types, paged listings with prefix and fields, ranged downloads.

Still missing: batch requests; an upload with a wrong x-goog-hash is accepted; a chunk that was cut off is lost as a
whole (Cloud Storage may keep a part of it); another write may come between comparing a generation and writing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests
from gateway import Answer, Gateway, Request

_TIMEOUT_S = 60
_OBJECT = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>.+)")
_UPLOAD = re.compile(r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o")
_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass
class _Upload:
    """A resumable upload: its object, its precondition, the bytes received, and the answer to its last chunk."""

    bucket: str
    name: str
    condition: str | None
    held_bytes: int = 0
    finished: Answer | None = None


class GcsGateway(Gateway):
    """A gateway to fake-gcs-server with Cloud Storage's resumable uploads and preconditions."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._uploads: dict[str, _Upload] = {}

    def stand_in(self, request: Request) -> Answer | None:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload and request.method == "PUT":
            return self._stand_in_for_chunk(request, upload)
        match = _OBJECT.fullmatch(request.path)
        if request.method == "DELETE" and match:
            return self._failed_precondition(match["bucket"], match["name"], request.query.get("ifGenerationMatch"))
        return None

    def correct(self, request: Request, answer: Answer) -> Answer:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        span = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if upload is None:
            self._note_start(request, answer)
        elif answer.status == 308 and span and span["last"]:
            upload.held_bytes = int(span["last"]) + 1
        elif answer.status == 200:
            upload.finished = answer
        return answer

    def _note_start(self, request: Request, answer: Answer) -> None:
        match = _UPLOAD.fullmatch(request.path)
        if match and request.query.get("uploadType") == "resumable" and answer.status == 200:
            (identity,) = parse_qs(urlsplit(dict(answer.headers)["Location"]).query)["upload_id"]
            name = request.query.get("name") or request.body["name"]
            self._uploads[identity] = _Upload(match["bucket"], name, request.query.get("ifGenerationMatch"))

    def _stand_in_for_chunk(self, request: Request, upload: _Upload) -> Answer | None:
        if upload.finished:
            return upload.finished
        span = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if span and (span["last"] is None or int(span["last"]) < upload.held_bytes):
            held = [("Range", f"bytes=0-{upload.held_bytes - 1}")] if upload.held_bytes else []
            return Answer(308, held)
        if span is None or span["total"] == str(int(span["last"]) + 1):
            return self._failed_precondition(upload.bucket, upload.name, upload.condition)
        return None

    def _failed_precondition(self, bucket: str, name: str, condition: str | None) -> Answer | None:
        """The error for a request whose generation precondition fails; None if it holds."""
        if condition is None:
            return None
        address = f"{self.target}/storage/v1/b/{quote(bucket)}/o/{quote(name, safe='')}"
        answer: Any = requests.get(address, timeout=_TIMEOUT_S)
        generation = answer.json()["generation"] if answer.status_code == 200 else "0"
        if generation == condition:
            return None
        message = "At least one of the pre-conditions you specified did not hold."
        return Answer.of_error(412, "conditionNotMet", message)
