"""Clients of Google Cloud, one per process, and what its errors mean to a person.

Credentials are Google's application default credentials; a key file at the place where many courses put it is used
when nothing else says which. They are never logged. With `STORAGE_EMULATOR_HOST` or `BIGQUERY_EMULATOR_HOST` set, as
Google's own libraries read them, nothing leaves the machine and no credentials are needed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from google.cloud import bigquery, storage

# They begin to say so on a day in the calendar, in every process anew; setup.cfg says which Pythons are meant.
warnings.filterwarnings("ignore", r"You are using a .*Python version", FutureWarning, r"google\.")

#: Looked at when GOOGLE_APPLICATION_CREDENTIALS is not set.
KEY_FILE = Path("~/.google/credentials/google_credentials.json")
_THREE_WAYS = (
    "give Google Cloud credentials in one of three ways: run `gcloud auth application-default login`; set "
    f"GOOGLE_APPLICATION_CREDENTIALS to a key file, or put it at {KEY_FILE}; or run on a Google Cloud machine that has "
    "a service account"
)
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
_INSTALL = "Google Cloud needs its client libraries: pip install google-cloud-storage google-cloud-bigquery"


def storage_client() -> storage.Client:
    """The client of Cloud Storage that belongs to this process.

    Raises:
        UsageError: there are no credentials, or no client library.
    """
    return _storage_client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))


def bigquery_client(project: str, location: str) -> bigquery.Client:
    """The client of BigQuery that belongs to this process; its jobs run in `project` and `location`.

    Raises:
        UsageError: there are no credentials, or no client library.
    """
    return _bigquery_client(os.getpid(), os.environ.get("BIGQUERY_EMULATOR_HOST", ""), project, location)


# A client holds connections and locks, which a forked child must not share: hence the process's id.
@lru_cache(maxsize=4)
def _storage_client(process: int, emulator: str) -> storage.Client:
    try:
        from google.cloud import storage
    except ImportError as error:
        raise UsageError(_INSTALL) from error
    # The library asks, for traces that nobody collects, for each bucket's metadata, which takes a role more.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    if emulator:
        from google.auth.credentials import AnonymousCredentials

        return storage.Client(project="emulated", credentials=AnonymousCredentials())
    credentials, project = _credentials()
    return storage.Client(project=project or "unknown", credentials=credentials)


@lru_cache(maxsize=4)
def _bigquery_client(process: int, emulator: str, project: str, location: str) -> bigquery.Client:
    try:
        from google.cloud import bigquery
    except ImportError as error:
        raise UsageError(_INSTALL) from error
    if emulator:
        from google.auth.credentials import AnonymousCredentials

        # The library reads BIGQUERY_EMULATOR_HOST for the address.
        return bigquery.Client(project=project, credentials=AnonymousCredentials(), location=location)
    return bigquery.Client(project=project, credentials=_credentials()[0], location=location)


def _credentials() -> tuple[Any, str | None]:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.oauth2 import service_account

    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    key_file = Path(os.path.expanduser(KEY_FILE))  # noqa: PTH111 - where Path raises
    try:
        if not named and key_file.is_file():
            credentials = service_account.Credentials.from_service_account_file(str(key_file), scopes=_SCOPES)
            return credentials, credentials.project_id
        credentials, project = google.auth.default(scopes=_SCOPES)
    # Besides its own errors the library lets through what JSON of any other form leads to. Not a word of the reasons
    # is told where they may quote the file.
    except (ValueError, AttributeError, TypeError, KeyError, OSError) as error:
        raise UsageError(f"{named or key_file} cannot be read as a key file; {_THREE_WAYS}") from error
    except DefaultCredentialsError as error:
        raise UsageError(f"{str(error.args[0]).partition('. ')[0].removesuffix('.')}; {_THREE_WAYS}") from error
    return credentials, project


@contextmanager
def translated(kind: type[PipelineError], subject: str, roles: str) -> Iterator[None]:
    """Turn what Google's libraries and the network raise into one error of `kind`; `roles` is what a 403 lacks."""
    import requests
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, GoogleAPIError, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except Forbidden as error:
        raise kind(f"{subject}: permission denied: {_reason(error)}; grant {roles}") from error
    except Unauthorized as error:
        raise kind(f"{subject}: the credentials are not accepted: {_reason(error)}; {_THREE_WAYS}") from error
    except GoogleAuthError as error:
        raise kind(f"{subject}: no access with these credentials: {error.args[0]}; {_THREE_WAYS}") from error
    except GoogleAPICallError as error:
        raise kind(f"{subject}: HTTP {int(error.code or 0)}: {_reason(error)}") from error
    except (GoogleAPIError, requests.RequestException, ConnectionError) as error:
        last, remedy = _last(error), "run again later"
        if "CERTIFICATE_VERIFY_FAILED" in last:
            remedy = "set REQUESTS_CA_BUNDLE to a file with the certificate of the authority that signed Google's here"
        raise kind(f"{subject}: Google Cloud does not answer: {last}; {remedy}") from error
    except OSError as error:
        if error.errno is not None:  # Of a disk, not of requests.
            raise
        raise kind(f"{subject}: {error}; correct or unset REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE") from error


def _reason(error: Any) -> str:
    """What the service said, without the request's address, all of its reasons."""
    told = [str(entry["message"]) for entry in error.errors if isinstance(entry, dict) and entry.get("message")]
    return "; ".join(dict.fromkeys(told)) or str(error.message)


def _last(error: BaseException) -> str:
    """The innermost cause in a line."""
    from google.api_core.exceptions import GoogleAPICallError, from_http_response

    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    # The storage library has an error of its own for the contents of objects, which does not tell what was answered.
    answer = getattr(error, "response", None)
    if not isinstance(error, GoogleAPICallError) and hasattr(answer, "status_code"):
        error = from_http_response(answer)
    if isinstance(error, GoogleAPICallError):
        return f"HTTP {int(error.code or 0)}: {_reason(error)}"
    return f"{type(error).__name__}: {error}"
