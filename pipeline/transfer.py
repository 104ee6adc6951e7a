"""One file over HTTP, whole: what `pipeline.source` relies on.

The bytes go to a part file (`pipeline.parts`). A later attempt, in this process or the next, asks for the rest of just
the version it holds (Range with If-Range); any other answer starts over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

import requests
import urllib3

from pipeline.errors import SourceError, StoreError
from pipeline.parts import Part, Version, hash_of, write_all
from pipeline.retries import Again, Politeness, asking, number, reason, redact, refuse_unless_ok, wait
from pipeline.version import __version__

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"taxi-pipeline/{__version__}"}
_CHUNK_BYTES = 1 << 18
_ABSENT = (403, 404)
_PAGES = ("text/html", "text/xml", "application/xml")

#: Called with bytes so far, bytes in all (None when unknown) and bytes per second.
Progress = Callable[[int, "int | None", float], None]


@dataclass(frozen=True)
class Answer:
    """What is known of the bytes that arrived; `whole` is false when the site did not say how many there would be."""

    etag: str | None
    last_modified: str | None
    bytes: int
    sha256: str
    whole: bool = True


def fetch_url(
    url: str,
    path: Path,
    politeness: Politeness,
    subject: str,
    *,
    check: Callable[[Answer], None],
    decode: bool = True,
    progress: Progress | None = None,
) -> Answer | None:
    """Bring the file at `url` to the part file at `path`; None when the site has none (403, 404).

    `check` raises a SourceError when the bytes are not what they should be; they are then fetched anew. `decode` undoes
    what the site or a proxy on the way did to the bytes although asked not to (Content-Encoding).

    Raises:
        SourceError: the site misbehaved through all retries in a row without progress, or refused for good.
        StoreError: the part file cannot be written.
    """
    part, failures = Part(path), 0
    download = _Download(url, part, politeness.timeout_s, f"{subject}: {redact(url)}", decode, progress)
    # Progress is what goes beyond all that was ever there; else a site that sends now more, now less has no end.
    most = part.size
    with requests.Session() as session:
        while True:
            try:
                answer = download.attempt(session)
                if answer is not None:
                    most = max(most, answer.bytes)
                    _check(check, answer, part)
                return answer
            except Again as again:
                failures = 1 if part.size > most else failures + 1
                most = max(most, part.size)
                wait(again, failures, politeness, download.where)


def head_url(url: str, politeness: Politeness, subject: str, *, decode: bool = True) -> Version | None:
    """The version of the file that the site has now; None when it has none (403, 404). `decode` is as for `fetch_url`.

    Not under a condition such as If-None-Match: an answer to HEAD has no body that could be saved.

    Raises:
        SourceError: it answers neither yes nor no, through all retries.
    """
    failures, where = 0, f"{subject}: {redact(url)}"
    while True:
        try:
            with asking(where):
                response = requests.head(url, headers=_HEADERS, timeout=politeness.timeout_s, allow_redirects=True)
            if response.status_code in _ABSENT:
                return None
            refuse_unless_ok(response, where)
            return _version(url, response, encoded=decode and _is_encoded(response))
        except Again as again:
            failures += 1
            wait(again, failures, politeness, where)


@dataclass(frozen=True)
class _Download:
    """One file on its way to its part; `where` is what errors begin with."""

    url: str
    part: Part
    timeout_s: float
    where: str
    decode: bool
    progress: Progress | None

    def attempt(self, session: requests.Session) -> Answer | None:
        """Ask once, for the rest of what is there or for all of it; None when the site has no such file."""
        held = self.part.version(redact(self.url))
        headers = dict(_HEADERS)
        if held is not None:
            headers |= {"Range": f"bytes={self.part.size}-", "If-Range": held.validator or ""}
        with asking(self.where):
            response = session.get(self.url, headers=headers, stream=True, timeout=self.timeout_s)
        with response:
            if response.status_code in _ABSENT:
                return None
            if response.status_code == 416:
                return _whole_already(response, held, self.part)
            refuse_unless_ok(response, self.where)
            return self._receive(response, held)

    def _receive(self, response: requests.Response, held: Version | None) -> Answer:
        """Write the body to its place in the part."""
        start, version, encoded = self._announced(response, held)
        began, got = monotonic(), 0
        with self.part.opened(version, anew=not start) as file:
            digest = hash_of(file)
            for chunk in _body(response, decode=encoded):
                digest.update(chunk)
                write_all(file, chunk)
                got += len(chunk)
                if self.progress is not None:
                    self.progress(start + got, version.bytes, got / max(monotonic() - began, 1e-6))
        if version.bytes is not None and start + got != version.bytes:
            raise Again(f"sent {start + got:,} of {version.bytes:,} bytes")
        framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        return Answer(version.etag, version.last_modified, start + got, digest.hexdigest(), whole=framed)

    def _announced(self, response: requests.Response, held: Version | None) -> tuple[int, Version, bool]:
        """Where in the file the body starts, of which version it is, and whether it must be decoded."""
        headers = response.headers
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        encoded = self.decode and _is_encoded(response)
        if response.status_code == 206:
            unit_and_range, _, total = headers.get("Content-Range", "").partition("/")
            start, size = unit_and_range.removeprefix("bytes ").partition("-")[0], number(total)
            if encoded or held is None or start != str(self.part.size) or not held.covers(etag, modified, size):
                self.part.discard()
                raise Again("answered with a part that does not fit what was asked for")
            return self.part.size, replace(held, bytes=held.bytes or size), False
        if held is not None and not (etag or modified) and headers.get("Content-Type", "").startswith(_PAGES):
            # The page of a hotel's network, say: no reason to give up what is there.
            raise Again("answered with a page in place of the rest")
        return 0, _version(self.url, response, encoded=encoded), encoded


def _is_encoded(response: requests.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


def _version(url: str, response: requests.Response, *, encoded: bool) -> Version:
    """The version that the headers tell of; the tag and the length of what is encoded are not those of the file."""
    headers = response.headers
    etag, size = headers.get("ETag"), number(headers.get("Content-Length", ""))
    return Version(redact(url), None if encoded else etag, headers.get("Last-Modified"), None if encoded else size)


def _body(response: requests.Response, *, decode: bool) -> Iterator[bytes]:
    """The body in pieces as they come: a full read would lose what had come of it when the connection breaks."""
    try:
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=decode):
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise Again(reason(error)) from error


def _whole_already(response: requests.Response, held: Version | None, part: Part) -> Answer:
    """A 416 says that nothing is left to send: the process died between the last byte and its publication."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    same = held is not None and response.headers.get("ETag", held.etag) == held.etag
    if held is None or not same or not held.bytes == number(total) == part.size:
        part.discard()
        raise Again("HTTP 416 for the rest of a file")
    return Answer(held.etag, held.last_modified, part.size, part.sha256())


def _check(check: Callable[[Answer], None], answer: Answer, part: Part) -> None:
    try:
        check(answer)
    except SourceError as error:
        part.discard()
        raise Again(str(error)) from error
    except OSError as error:
        raise StoreError(f"{part.path}: cannot be read: {error.strerror}; mend that and run again") from error
