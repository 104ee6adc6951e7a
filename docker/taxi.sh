#!/bin/sh
# docker compose for the stack of this clone, from any working folder: docker/taxi.sh up --detach --wait
# Files belong to the calling user, unless the environment or docker/.env sets PIPELINE_UID. If setup fails because of the
# folders, this shows its message: Compose shows only its exit code.
set -eu
cd -P "$(dirname "$0")/.."
export PWD
if ! printenv PIPELINE_UID > /dev/null && ! grep -qs '^PIPELINE_UID=' docker/.env; then
  PIPELINE_UID=${SUDO_UID:-$(id -u)} PIPELINE_GID=${SUDO_GID:-$(id -g)}
  # In rootless Docker, root in a container is the user outside. Elsewhere it would be root: then this takes 1000, and
  # setup reports the owner of the folders.
  case $(docker info --format '{{.SecurityOptions}}' 2> /dev/null || true) in
    *name=rootless*) PIPELINE_UID=0 PIPELINE_GID=0 ;;
    *) [ "$PIPELINE_UID" != 0 ] || PIPELINE_UID=1000 PIPELINE_GID=1000 ;;
  esac
  export PIPELINE_UID PIPELINE_GID
fi
compose() { docker compose --file docker/compose.yaml "$@"; }
compose "$@" && exit || code=$?
compose logs --no-log-prefix --since 1m --tail 1 setup 2> /dev/null | grep -o 'setup: the folder.*' >&2 || true
exit "$code"
