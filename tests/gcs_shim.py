"""What fake-gcs-server 1.54 lacks of Cloud Storage, made up for in its gateway.

- A chunk of a resumable upload that is sent again, because its answer was lost, is appended once more; Cloud Storage
  ignores what it has already. Asked how far an upload has come, it ends the upload with an empty object; Cloud Storage
  says how far. A finished upload is forgotten; Cloud Storage answers its last chunk again as before.
  https://cloud.google.com/storage/docs/performing-resumable-uploads#status-check
- `ifGenerationMatch` is looked at when a resumable upload begins, but not when it ends, so that two writers both win;
  and not at all when an object is deleted. https://cloud.google.com/storage/docs/request-preconditions

Works without: whole and resumable uploads, preconditions of whole uploads, crc32c, generations, custom metadata,
content types, paged listings with prefix and fields, ranged downloads.

Stays lacking: batch requests; an upload whose x-goog-hash does not fit is not refused; a chunk that is cut is forgotten
whole (Cloud Storage may keep a part of it); between the look at a generation and the write another may write.
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
    """A resumable upload: for which object, on which condition, how far, and the answer to its last chunk."""

    bucket: str
    name: str
    condition: str | None
    held_bytes: int = 0
    finished: Answer | None = None


class GcsGateway(Gateway):
    """A gateway to fake-gcs-server that keeps Cloud Storage's word on resumable uploads and preconditions."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._uploads: dict[str, _Upload] = {}

    def stand_in(self, request: Request) -> Answer | None:
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if upload and request.method == "PUT":
            return self._stand_in_for_chunk(request, upload)
        found = _OBJECT.fullmatch(request.path)
        if request.method == "DELETE" and found:
            return self._refused(found["bucket"], found["name"], request.query.get("ifGenerationMatch"))
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
        found = _UPLOAD.fullmatch(request.path)
        if found and request.query.get("uploadType") == "resumable" and answer.status == 200:
            (identity,) = parse_qs(urlsplit(dict(answer.headers)["Location"]).query)["upload_id"]
            name = request.query.get("name") or request.body["name"]
            self._uploads[identity] = _Upload(found["bucket"], name, request.query.get("ifGenerationMatch"))

    def _stand_in_for_chunk(self, request: Request, upload: _Upload) -> Answer | None:
        if upload.finished:
            return upload.finished
        span = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if span and (span["last"] is None or int(span["last"]) < upload.held_bytes):
            held = [("Range", f"bytes=0-{upload.held_bytes - 1}")] if upload.held_bytes else []
            return Answer(308, held)
        if span is None or span["total"] == str(int(span["last"]) + 1):
            return self._refused(upload.bucket, upload.name, upload.condition)
        return None

    def _refused(self, bucket: str, name: str, condition: str | None) -> Answer | None:
        """The answer to a request whose condition on the object's generation does not hold."""
        if condition is None:
            return None
        address = f"{self.target}/storage/v1/b/{quote(bucket)}/o/{quote(name, safe='')}"
        found: Any = requests.get(address, timeout=_TIMEOUT_S)
        generation = found.json()["generation"] if found.status_code == 200 else "0"
        if generation == condition:
            return None
        message = "At least one of the pre-conditions you specified did not hold."
        return Answer.of_error(412, "conditionNotMet", message)
