#!/bin/sh
# The pipeline command; what it runs is shared through luigid where the stack has one.
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
