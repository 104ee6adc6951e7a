#!/bin/sh
# gcloud, with the key file where there is one.
set -eu
key=$HOME/.google/credentials/google_credentials.json
if [ -r "$key" ]; then
  export CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE="$key"
else
  echo "gcloud: there is no google_credentials.json in the mounted folder (docker/README.md, Google Cloud)" >&2
fi
exec gcloud "$@"
