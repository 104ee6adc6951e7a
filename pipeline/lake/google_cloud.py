"""The clients of Google Cloud, one per process, and the translation of its errors.

Credentials are Google's application default credentials, or a key file at `KEY_FILE`, where many courses put it. They
are never logged. With `STORAGE_EMULATOR_HOST` or `BIGQUERY_EMULATOR_HOST` set, which Google's libraries read, nothing
leaves the machine and no credentials are needed.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, UsageError

if TYPE_CHECKING:
    from google.cloud.bigquery import Client as BigQueryClient
    from google.cloud.storage import Client as StorageClient

# From a certain date on they warn in every process; setup.cfg says which Pythons are supported.
warnings.filterwarnings("ignore", r"You are using a .*Python version", FutureWarning, r"google\.")

#: Used when GOOGLE_APPLICATION_CREDENTIALS is not set.
KEY_FILE = Path("~/.google/credentials/google_credentials.json")
_THREE_WAYS = (
    "give Google Cloud credentials in one of three ways: run `gcloud auth application-default login`; set "
    f"GOOGLE_APPLICATION_CREDENTIALS to a key file, or put it at {KEY_FILE}; or run on a Google Cloud machine that has "
    "a service account"
)
_SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def storage_client() -> StorageClient:
    """The client of Cloud Storage that belongs to this process; a UsageError without credentials."""
    # Else the library asks for each bucket's metadata, for traces that are not collected; that needs one more role.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    client: StorageClient = _client("storage", os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))
    return client


def bigquery_client(project: str, location: str) -> BigQueryClient:
    """The client of BigQuery that belongs to this process, for jobs in `project` and `location`; raises the same."""
    emulator = os.environ.get("BIGQUERY_EMULATOR_HOST", "")
    client: BigQueryClient = _client("bigquery", os.getpid(), emulator, project=project, location=location)
    return client


# A client has connections and locks, which a forked child must not share: hence the process's id.
@lru_cache(maxsize=8)
def _client(service: str, process: int, emulator: str, *, project: str | None = None, **options: str) -> Any:
    library = import_module(f"google.cloud.{service}")
    if emulator:
        from google.auth.credentials import AnonymousCredentials

        return library.Client(project=project or "emulated", credentials=AnonymousCredentials(), **options)
    credentials, default_project = _credentials()
    return library.Client(project=project or default_project or "unknown", credentials=credentials, **options)


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
    # The library also raises these for JSON of another form. Their text is not shown: it may quote the file.
    except (ValueError, AttributeError, TypeError, KeyError, OSError) as error:
        raise UsageError(f"{named or key_file} cannot be read as a key file; {_THREE_WAYS}") from error
    except DefaultCredentialsError as error:
        raise UsageError(f"{str(error.args[0]).partition('. ')[0].removesuffix('.')}; {_THREE_WAYS}") from error
    return credentials, project


@contextmanager
def translated(error_class: type[PipelineError], subject: str, roles: str) -> Iterator[None]:
    """Turn errors of Google's libraries and the network into an `error_class`; `roles` is what a 403 lacks."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, GoogleAPIError, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except Forbidden as error:
        raise error_class(f"{subject}: permission denied: {_reason(error)}; grant {roles}") from error
    except Unauthorized as error:
        raise error_class(f"{subject}: the credentials are not accepted: {_reason(error)}; {_THREE_WAYS}") from error
    except GoogleAuthError as error:
        raise error_class(f"{subject}: no access with these credentials: {error.args[0]}; {_THREE_WAYS}") from error
    except GoogleAPICallError as error:
        raise error_class(f"{subject}: HTTP {int(error.code or 0)}: {_reason(error)}") from error
    except (GoogleAPIError, OSError) as error:
        if getattr(error, "errno", None) is not None and not isinstance(error, ConnectionError):
            raise  # An error of a disk; those of requests have no number.
        cause, remedy = _innermost(error), "run again later"
        if re.search("CERTIFICATE_VERIFY_FAILED|CA certificate bundle", cause):
            remedy = "set REQUESTS_CA_BUNDLE to a file with the certificate of the authority that signed Google's"
        raise error_class(f"{subject}: Google Cloud does not answer: {cause}; {remedy}") from error


def _reason(error: Any) -> str:
    """All messages of the service, without the request's address."""
    messages = [str(entry["message"]) for entry in error.errors if isinstance(entry, dict) and entry.get("message")]
    return "; ".join(dict.fromkeys(messages)) or str(error.message)


def _innermost(error: BaseException) -> str:
    """The innermost cause in one line."""
    from google.api_core.exceptions import GoogleAPICallError, from_http_response

    while (inner := getattr(error, "cause", None) or error.__cause__) is not None:
        error = inner
    # The storage library's own error for the contents of objects does not show the response.
    response = getattr(error, "response", None)
    if not isinstance(error, GoogleAPICallError) and hasattr(response, "status_code"):
        error = from_http_response(response)
    if isinstance(error, GoogleAPICallError):
        return f"HTTP {int(error.code or 0)}: {_reason(error)}"
    return f"{type(error).__name__}: {error}"
