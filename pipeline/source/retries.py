"""Which failed HTTP requests are retried, and when.

A failure that may pass raises `RetryableError`: a broken connection, a timeout, an unknown host name, most statuses
from 500 up. Others raise a SourceError at once: certificates, a server without TLS, a refusal by a proxy.
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
from email.utils import parsedate_to_datetime
from time import sleep
from typing import TypeVar

import requests
import urllib3

from pipeline.errors import SourceError
from pipeline.units import counted
from pipeline.version import __version__

_LONGEST_WAIT_S = 600.0
#: Retried besides statuses from 500 up: request timeout, too early, too many requests.
_RETRIED = (408, 425, 429)
#: The variables that name the trusted certificates; the first one that is set counts.
_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
#: OpenSSL's reasons that no other bundle of certificates fixes.
_EXPIRED, _NOT_YET_VALID, _OTHER_NAMES = 10, 9, (62, 64)

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How often to retry without progress, how long to wait first, and the longest file.

    `on_retry` is called before each wait, with the number of the next attempt, of all of them, seconds, and the reason.
    """

    timeout_s: float
    retries: int
    first_wait_s: float
    limit_bytes: float = 10e9
    on_retry: Callable[[int, int, float, str], None] | None = field(default=None, compare=False)


class RetryableError(Exception):
    """An attempt failed that may succeed later; the site asked for a wait of `wait_s`."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Retries:
    """The attempts of one request; `where` begins its errors, `failures` counts those in a row."""

    def __init__(self, policy: RetryPolicy, where: str) -> None:
        self._policy, self._where = policy, where
        self.failures = 0

    def run(self, attempt: Callable[[], _T]) -> _T:
        """The result of the first attempt that raises no `RetryableError`; a SourceError after the last one."""
        policy = self._policy
        while True:
            try:
                return attempt()
            except RetryableError as error:
                self.failures += 1
                if self.failures > policy.retries:
                    problem = f"{error}; gave up after {counted(self.failures, 'attempt')}"
                    raise SourceError(f"{self._where}: {problem}, come back later") from error
                if error.wait_s > _LONGEST_WAIT_S:
                    problem = f"{error}; asks to wait {error.wait_s:,.0f} s"
                    raise SourceError(f"{self._where}: {problem}, come back later") from error
                # With jitter, so that many workers do not come back at the same moment.
                backoff = policy.first_wait_s * 2.0 ** min(self.failures - 1, 30) * random.uniform(0.5, 1.5)  # noqa: S311
                seconds = max(error.wait_s, min(backoff, _LONGEST_WAIT_S))
                if policy.on_retry is not None:
                    policy.on_retry(self.failures + 1, policy.retries + 1, seconds, str(error))
            sleep(seconds)


@contextmanager
def translate_request_errors(where: str) -> Iterator[None]:
    """Turn what a request raises into `RetryableError`, or into SourceError where a retry cannot help."""
    try:
        yield
    except (ValueError, requests.TooManyRedirects) as error:
        # Without the error's text, which quotes the address with its secrets.
        remedy = "look at [pipeline] source, its redirects, and the proxy that the environment names"
        raise SourceError(f"{where}: the address cannot be requested ({type(error).__name__}); {remedy}") from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if remedy := _remedy(error):
            raise SourceError(f"{where}: {reason(error)}; {remedy}") from error
        raise RetryableError(reason(error)) from error


class _Session(requests.Session):
    """Does not read the body of a redirect, which may have no end."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target: str | None = super().get_redirect_target(resp)
        if target:
            resp.close()
        return target


def request(method: str, url: str, timeout_s: float, where: str, **headers: str) -> requests.Response:
    """The response, whose body is not read yet; raises as `translate_request_errors`."""
    headers = {"Accept-Encoding": "identity", "User-Agent": f"taxi-pipeline/{__version__}", **headers}
    with translate_request_errors(where), _Session() as session:
        return session.request(method, url, headers=headers, stream=True, timeout=timeout_s, verify=ca_bundle())


def ca_bundle() -> str | bool:
    """The certificates to trust, as `verify` of requests, which ignores SSL_CERT_FILE by itself."""
    return next(filter(None, map(os.environ.get, _CA_BUNDLES)), True)


def _remedy(error: BaseException) -> str:
    """What helps where a retry cannot; empty for a cause that may pass."""
    cause = _innermost(error)
    variables = (f"{name} = {os.environ[name]}" for name in _CA_BUNDLES if os.environ.get(name))
    bundle = next(variables, "the bundle of requests")
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in (_EXPIRED, _NOT_YET_VALID):
            return "look at the clock of this machine; if it is right, the site must renew its certificate"
        if cause.verify_code in _OTHER_NAMES:
            return "look at the host in [pipeline] source, and at the proxy that the environment names"
        return (
            "set REQUESTS_CA_BUNDLE (or SSL_CERT_FILE) to a file with the certificate of the authority that signed "
            f"the site's certificate, for instance that of a proxy; now it is {bundle}"
        )
    if isinstance(cause, ssl.SSLError) and re.search(r"WRONG_VERSION|PROTOCOL|HANDSHAKE_FAILURE", str(cause)):
        return "look at http:// or https://, and the port, in [pipeline] source, and at the proxy"
    # A bundle without any, or with a truncated certificate; an unreadable one; one that does not exist.
    unreadable = re.search(r"X509|PEM|ASN1", str(cause)) or isinstance(cause, PermissionError)
    missing = type(error) is OSError and "CA certificate bundle" in str(error)
    if missing or (isinstance(error, requests.exceptions.SSLError) and unreadable):
        return f"no certificates can be read from {bundle}; correct or unset it, or reinstall certifi"
    if isinstance(error, requests.exceptions.ProxyError) and re.search(r"failed: 40[0-7] ", str(cause)):
        return "look at the proxy, its user and its password, that the environment names"
    if isinstance(cause, PermissionError):
        return "this machine forbids the connection; look at its firewall"
    return ""


def is_valid_url(url: str) -> bool:
    """Whether it is an http(s) address with a valid host and port."""
    try:
        return url.lower().startswith(("http://", "https://")) and bool(requests.Request("GET", url).prepare().url)
    except ValueError:
        return False


def _retry_after_s(response: requests.Response) -> float:
    """Seconds from a Retry-After header: a number, or a date by the site's clock."""
    text = response.headers.get("Retry-After", "")
    if (seconds := to_int(text)) is not None:
        return float(seconds)
    try:
        now = parsedate_to_datetime(response.headers["Date"])
        return (parsedate_to_datetime(text) - now).total_seconds()
    except (KeyError, ValueError, TypeError):
        return 0.0


def validate_response(response: requests.Response, where: str) -> None:
    """Raise RetryableError for a status that is retried, SourceError for any other that announces no file."""
    status = f"HTTP {response.status_code} {response.reason or ''}".strip()
    # 511: the network asks for a login.
    if response.status_code in _RETRIED or (response.status_code >= 500 and response.status_code != 511):
        raise RetryableError(status, _retry_after_s(response))
    if response.status_code not in (200, 206):
        raise SourceError(f"{where}: {status}; look at [pipeline] source, and at the proxy or login of this network")


def retry_message(attempt: int, attempts: int, wait_s: float, reason: str) -> str:
    """For instance `attempt 2 of 6 in 4 s: name not known`."""
    return f"attempt {attempt} of {attempts} in {wait_s:.3g} s: {reason}"


def reason(error: BaseException) -> str:
    """The innermost cause in one line; the outer errors only repeat it."""
    cause = _innermost(error)
    text = f"{type(cause).__name__}: {cause}".removesuffix(": ")
    text = "name not known" if isinstance(cause, socket.gaierror) else text
    return f"through a proxy: {text}" if isinstance(error, requests.exceptions.ProxyError) else text


def _innermost(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    return error


def to_int(text: str) -> int | None:
    """A whole number from a header; None for any other text, and for more than 15 digits."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None
