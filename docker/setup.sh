#!/bin/sh
# Runs before all other services: validates that the mounted folders are writable, and creates a password for Postgres
# once, in files that only the user can read. The server reads its file as a member of the group.
set -eu
for folder in /taxi/data /run/taxi; do
  if ! [ -w "$folder" ]; then
    owner=$(stat -c %u:%g "$folder")
    echo "setup: the folder mounted at $folder belongs to $owner, but the container runs as $(id -u):$(id -g). Set" \
      "PIPELINE_UID and PIPELINE_GID in docker/.env to its owner, or change its owner: sudo chown -R" \
      "$(id -u):$(id -g) docker/data docker/secrets (or the folders in TAXI_DATA and TAXI_SECRETS)" >&2
    exit 1
  fi
done
chmod 0750 /run/taxi
cd /run/taxi
if ! [ -s postgres_password ]; then
  umask 0027
  head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > .new
  mv .new postgres_password
  echo "setup: created a password for Postgres"
fi
umask 0077
printf 'postgres:5432:*:taxi:%s\n' "$(cat postgres_password)" > .pgpass
mv .pgpass pgpass
mkdir -p /taxi/data/lake /taxi/data/logs
