#!/bin/sh
# Run gcloud, with the key file if it exists.
set -eu
key=$HOME/.google/credentials/google_credentials.json
if [ -r "$key" ]; then
  export CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE="$key"
else
  echo "gcloud: the mounted folder contains no google_credentials.json; see Google Cloud in docker/README.md" >&2
fi
exec gcloud "$@"
