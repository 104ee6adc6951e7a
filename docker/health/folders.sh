#!/bin/sh
# Whether the mounted folder is writable and the password of Postgres is readable.
set -eu
[ -w /taxi/data ]
[ -r /run/taxi/pgpass ]
