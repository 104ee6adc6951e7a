#!/bin/sh
# Whether the mounted folder can be written and the password of Postgres can be read.
set -eu
[ -w /taxi/data ]
[ -r /run/taxi/pgpass ]
