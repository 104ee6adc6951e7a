#!/bin/bash
# Whether the server on port $1 of this container answers 200 for the path $2.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
read -r -t 4 answer <&3
[[ $answer == HTTP/*" 200 "* ]]
