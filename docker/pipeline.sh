#!/bin/sh
# The pipeline command; it runs steps through luigid if the stack has one.
set -eu
case ${1:-} in
  backfill | redo | refresh)
    if [ -n "${LUIGI_SCHEDULER_URL:-}" ]; then
      command=$1
      shift
      set -- "$command" --scheduler "$LUIGI_SCHEDULER_URL" "$@"
    fi
    ;;
esac
exec pipeline "$@"
