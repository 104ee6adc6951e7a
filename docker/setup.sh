#!/bin/sh
# Before all others: can the mounted folders be written? And a password for Postgres, made up once, in files that are
# nobody else's. The server reads its file as a member of the group.
set -eu
for folder in /taxi/data /run/taxi; do
  if ! [ -w "$folder" ]; then
    owner=$(stat -c %u:%g "$folder")
    echo "setup: the folder mounted at $folder belongs to $owner, and this runs as $(id -u):$(id -g). Write its owner" \
      "into docker/.env, as PIPELINE_UID and PIPELINE_GID, or give it to this user: sudo chown -R $(id -u):$(id -g)" \
      "docker/data docker/secrets (or what TAXI_DATA and TAXI_SECRETS name)" >&2
    exit 1
  fi
done
chmod 0750 /run/taxi
cd /run/taxi
if ! [ -s postgres_password ]; then
  umask 0027
  head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > .new
  mv .new postgres_password
  echo "setup: made a password for Postgres"
fi
umask 0077
printf 'postgres:5432:*:taxi:%s\n' "$(cat postgres_password)" > .pgpass
mv .pgpass pgpass
mkdir -p /taxi/data/lake /taxi/data/logs
