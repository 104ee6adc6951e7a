#!/bin/sh
# Whether the worker has looked around in the last minute; within a long step it does so, too.
set -eu
age=$(($(date +%s) - $(stat -c %Y /tmp/alive)))
echo "looked around $age s ago"
[ "$age" -lt 60 ]
