#!/bin/sh
# Whether the worker has touched its file in the last minute, which it also does during a long step.
set -eu
age=$(($(date +%s) - $(stat -c %Y /tmp/alive)))
echo "active $age s ago"
[ "$age" -lt 60 ]
