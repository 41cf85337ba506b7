#!/bin/sh
# Configures NGINX Unit to trust the reverse proxies in FORWARDED_ALLOW_IPS, as uvicorn does: unit.json
# cannot read the environment. The image runs this script after it applies unit.json.
set -eu
[ -n "${FORWARDED_ALLOW_IPS:-}" ] || exit 0
case "$FORWARDED_ALLOW_IPS" in
  *\**)
    echo "FORWARDED_ALLOW_IPS: name addresses or networks; with * clients would choose their address" >&2
    exit 1
    ;;
esac
sources=$(printf '%s' "$FORWARDED_ALLOW_IPS" | sed 's/[[:space:]]//g; s/,/", "/g')
exec curl --fail-with-body --silent --show-error --request PUT --data-binary "[\"$sources\"]" \
  --unix-socket /var/run/control.unit.sock \
  'http://localhost/config/listeners/*:8080/forwarded/source'
