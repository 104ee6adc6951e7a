#!/bin/sh
# docker compose for the stack of this clone, from wherever it is called: docker/taxi.sh up --detach --wait
# Files belong to who calls it, where neither the environment nor docker/.env says who. When setup refuses the folders,
# its reason is shown: Compose itself tells of its exit code only.
set -eu
cd -P "$(dirname "$0")/.."
export PWD
if ! printenv PIPELINE_UID > /dev/null && ! grep -qs '^PIPELINE_UID=' docker/.env; then
  PIPELINE_UID=${SUDO_UID:-$(id -u)} PIPELINE_GID=${SUDO_GID:-$(id -g)}
  # In rootless Docker a container's root is who runs Docker, and its other users are nobody outside. In other Docker root
  # would be root: then it is the default, and setup says whose the folders are.
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
