"""How a site is asked over HTTP: what may pass, what is final, how long to wait, and what errors may say of an address.

An attempt that failed in a way that may pass raises `RetryableError`; everything final is a SourceError at once. May
pass: no or a broken connection, a time-out, a name that is not known (resolvers fail, too), most statuses from 500 on.
Final: a certificate or a bundle of them, what is no TLS, a refusal by the proxy or by this machine, other statuses.
"""

from __future__ import annotations

import os
import random
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from time import sleep
from urllib.parse import urlsplit

import requests
import urllib3

from pipeline.errors import SourceError

_LONGEST_WAIT_S = 600.0
#: Beside all from 500 on: request time-out, too early, too many requests.
_PASSING = (408, 425, 429)
#: Not implemented, no such version of HTTP, extensions required, log in to this network first.
_LASTING = (501, 505, 510, 511)
#: The variables that name the certificates to trust, in the order in which they count.
_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
#: Causes that OpenSSL tells of, for which certificates are no remedy.
_EXPIRED, _NOT_YET_VALID, _OTHER_NAMES = 10, 9, (62, 64)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try: retries in a row without progress, the waits between them; and the longest file.

    `on_retry` is called before each wait, with the number of the next attempt, of all of them, seconds, and the reason.
    """

    timeout_s: float
    retries: int
    first_wait_s: float
    limit_bytes: float = 10e9
    on_retry: Callable[[int, int, float, str], None] | None = field(default=None, compare=False)


class RetryableError(Exception):
    """An attempt failed in a way that may pass; `wait_s` is how long the site wants to be left alone."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@contextmanager
def translate_request_errors(where: str) -> Iterator[None]:
    """Turn what a request raises into `RetryableError`, or SourceError where asking again is in vain."""
    try:
        yield
    except (ValueError, requests.TooManyRedirects) as error:
        # Not with the error's own words, which quote the address with its secrets.
        kind = type(error).__name__
        places = "[pipeline] source, where it redirects to, and the proxy that the environment names"
        raise SourceError(f"{where}: cannot be asked for ({kind}); look at {places}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if remedy := _remedy(error):
            raise SourceError(f"{where}: {reason(error)}; {remedy}") from error
        raise RetryableError(reason(error)) from error


def ca_bundle() -> str | bool:
    """The certificates to trust, for `verify` of requests, which looks at SSL_CERT_FILE not by itself."""
    return next(filter(None, map(os.environ.get, _CA_BUNDLES)), True)


def _remedy(error: BaseException) -> str:
    """What helps where asking again is in vain; empty for a cause that may pass."""
    cause = innermost(error)
    named = next((f"{name} = {os.environ[name]}" for name in _CA_BUNDLES if os.environ.get(name)), "")
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in (_EXPIRED, _NOT_YET_VALID):
            return "look at the clock of this machine; if it is right, the site must renew its certificate"
        if cause.verify_code in _OTHER_NAMES:
            return "look at the host in [pipeline] source, and at the proxy that the environment names"
        return (
            "set REQUESTS_CA_BUNDLE (or SSL_CERT_FILE) to a file with the certificate of the authority that signed "
            f"the site's, such as that of a proxy on the way{f'; now {named}' if named else ''}"
        )
    if isinstance(cause, ssl.SSLError) and re.search(r"WRONG_VERSION|PROTOCOL|HANDSHAKE_FAILURE", str(cause)):
        return "look at http:// or https://, and the port, in [pipeline] source, and at the proxy"
    # A bundle that holds none, or none whole; or that may not be read.
    bad = re.search(r"X509|PEM|ASN1", str(cause)) or isinstance(cause, PermissionError)
    if isinstance(error, requests.exceptions.SSLError) and bad:
        return f"no certificates can be read from {named or 'the bundle of requests'}; correct or unset it"
    if type(error) is OSError and "CA certificate bundle" in str(error):
        return f"{named or 'the bundle of requests'} is no file; correct or unset it, or reinstall certifi"
    if isinstance(error, requests.exceptions.ProxyError) and re.search(r"failed: 40[0-7] ", str(cause)):
        return "look at the proxy, its user and its password, that the environment names"
    if isinstance(cause, PermissionError):
        return "this machine forbids the connection; look at its firewall"
    return ""


def name_is_known(url: str, policy: RetryPolicy) -> bool:
    """Whether the host of an address has an IP address, after all retries; true where a proxy looks it up."""
    host = urlsplit(url).hostname or ""
    if requests.utils.get_environ_proxies(url):
        return True
    failures = 0
    while True:
        try:
            socket.getaddrinfo(host, None)
            return True
        except UnicodeError:  # Its request says what is wrong with it.
            return True
        except OSError as error:
            failures += 1
            try:
                wait(RetryableError(reason(error)), failures, policy, host)
            except SourceError:
                return False


def can_be_asked(url: str) -> bool:
    """Whether it is an address of which a host could be asked at all."""
    try:
        return bool(requests.Request("GET", url).prepare().url)
    except ValueError:
        return False


def validate_response(response: requests.Response, where: str) -> None:
    """Raise RetryableError for a status that may pass, SourceError for any other that does not announce the file."""
    status = f"HTTP {response.status_code} {response.reason or ''}".strip()
    if response.status_code in _PASSING or (response.status_code >= 500 and response.status_code not in _LASTING):
        raise RetryableError(status, _retry_after_s(response))
    if response.status_code in (407, 511):
        raise SourceError(f"{where}: {status}; look at the proxy that the environment names, or log in to the network")
    if response.status_code not in (200, 206):
        raise SourceError(f"{where}: {status}; look at [pipeline] source")


def wait(again: RetryableError, failures: int, policy: RetryPolicy, where: str) -> None:
    """Wait before the next attempt, after so many failures in a row.

    Raises:
        SourceError: enough is enough, or the site wants to be left alone for longer than is worth waiting.
    """
    if failures > policy.retries:
        attempts = f"{failures} attempt{'s' * (failures != 1)}"
        raise SourceError(f"{where}: {again}; gave up after {attempts}, come back later") from again
    if again.wait_s > _LONGEST_WAIT_S:
        raise SourceError(f"{where}: {again}; asks to be left alone for {again.wait_s:,.0f} s, come back later")
    # Half as long to half as long again, so that many workers do not come back all at once.
    backoff = policy.first_wait_s * 2.0 ** min(failures - 1, 30) * random.uniform(0.5, 1.5)  # noqa: S311
    seconds = max(again.wait_s, min(backoff, _LONGEST_WAIT_S))
    if policy.on_retry is not None:
        policy.on_retry(failures + 1, policy.retries + 1, seconds, str(again))
    sleep(seconds)


def retry_message(attempt: int, attempts: int, wait_s: float, reason: str) -> str:
    """Such as `attempt 2 of 6 in 4 s: name not known`."""
    return f"attempt {attempt} of {attempts} in {wait_s:.3g} s: {reason}"


def reason(error: BaseException) -> str:
    """The innermost cause in a line; the outer layers only repeat it."""
    through = "through a proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    error = innermost(error)
    if isinstance(error, socket.gaierror):
        return f"{through}name not known"
    return f"{through}{type(error).__name__}: {error}" if str(error) else f"{through}{type(error).__name__}"


def innermost(error: BaseException) -> BaseException:
    """What the error began with."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def number(text: str) -> int | None:
    """A whole number from a header; None when it is none, or longer than any that makes sense."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _retry_after_s(response: requests.Response) -> float:
    """Seconds from a Retry-After header, which holds a number or a date; the date is one of the site's clock."""
    text = response.headers.get("Retry-After", "").strip()
    if (seconds := number(text)) is not None:
        return float(seconds)
    try:
        now = response.headers.get("Date")
        since = parsedate_to_datetime(now) if now else datetime.now(timezone.utc)
        return (parsedate_to_datetime(text) - since).total_seconds()
    except (ValueError, TypeError):
        return 0.0
