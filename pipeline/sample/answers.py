"""The sample site's response to a request: which bytes of which file, with which headers.

Conditions and single ranges are as in RFC 9110, and errors as TLC's CDN sends them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from pipeline.sample.shelf import Item, http_date

_PAGE = "text/html; charset=utf-8"
_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message>'
    b"<RequestId>SAMPLE0000000000</RequestId><HostId>sample site</HostId></Error>"
)
_SORRY = b"<!DOCTYPE html><html><body><h1>We will be back soon</h1></body></html>"
_INDEX = (
    b"<!DOCTYPE html><html><title>Sample site</title><body><h1>A stand-in for TLC's site</h1>"
    b"<p>The trips here are made up, in the layout and spelling of each month. Nothing comes from TLC.</p>"
    b"<p>/trip-data/yellow_tripdata_2024-01.parquet (green, fhv, fhvhv), /misc/taxi_zone_lookup.csv</p></body></html>"
)


@dataclass
class Answer:
    """A response: bytes `start` to `stop` (excluded) of an item, or a text."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    text: bytes = b""
    item: Item | None = None
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        """The length of the body."""
        return self.stop - self.start if self.item else len(self.text)


def index() -> Answer:
    """The page that describes this site."""
    return Answer(200, {"Content-Type": _PAGE}, _INDEX)


def page() -> Answer:
    """A page instead of a file."""
    return Answer(200, {"Content-Type": _PAGE}, _SORRY)


def failure(status: int, retry_after_s: float | None = None) -> Answer:
    """An error; TLC's CDN answers 403, not 404, for a month that it lacks."""
    headers = {"Content-Type": "application/xml" if status == 403 else _PAGE}
    if retry_after_s is not None:
        headers["Retry-After"] = f"{retry_after_s:g}"
    return Answer(status, headers, _DENIED if status == 403 else _SORRY)


def whole_file(item: Item, size: int, *, bare: bool = False) -> Answer:
    """A file as if it had `size` bytes; `bare` leaves out the headers with which a download can be resumed."""
    headers = {"Content-Type": item.content_type}
    if not bare:
        headers |= {"ETag": item.etag, "Last-Modified": http_date(item.last_modified), "Accept-Ranges": "bytes"}
    return Answer(200, headers, item=item, stop=size)


def requested_part(item: Item, size: int, requested: Mapping[str, str]) -> Answer:
    """The part of a file that the request's headers ask for, or the response that it is unchanged."""
    answer = whole_file(item, size)
    if _unchanged(item, requested):
        return Answer(304, {name: text for name, text in answer.headers.items() if name != "Content-Type"})
    span = _span(requested.get("Range", ""), size)
    if span is None or not _same_version(item, requested.get("If-Range")):
        return answer
    start, stop = span
    if start >= stop:
        return Answer(416, {"Content-Range": f"bytes */{size}", "Content-Type": _PAGE}, _SORRY)
    headers = {**answer.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Answer(206, headers, item=item, start=start, stop=stop)


def chunks(answer: Answer, limit: int, chunk_bytes: int, flipped: int | None) -> Iterator[bytes]:
    """The first `limit` bytes of the body; all bits of the byte at `flipped` in the file are inverted."""
    if answer.item is None:
        yield answer.text[:limit]
        return
    with answer.item.path.open("rb") as file:
        file.seek(answer.start)
        position, stop = answer.start, answer.start + limit
        while position < stop and (chunk := file.read(min(chunk_bytes, stop - position))):
            if flipped is not None and position <= flipped < position + len(chunk):
                damaged = bytearray(chunk)
                damaged[flipped - position] ^= 0xFF
                chunk = bytes(damaged)
            position += len(chunk)
            yield chunk


def _unchanged(item: Item, requested: Mapping[str, str]) -> bool:
    if tags := requested.get("If-None-Match"):
        return tags.strip() == "*" or item.etag in [tag.strip().removeprefix("W/") for tag in tags.split(",")]
    since = _seconds(requested.get("If-Modified-Since", ""))
    return since is not None and item.last_modified <= since


def _same_version(item: Item, validator: str | None) -> bool:
    return validator is None or validator in (item.etag, http_date(item.last_modified))


def _seconds(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None


def _span(text: str, size: int) -> tuple[int, int] | None:
    """Start and end of a range, which is empty after the end of the file; None for several or invalid ranges."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
    return (start, stop) if not match[2] or int(match[2]) >= start else None
