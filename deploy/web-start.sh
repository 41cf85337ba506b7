#!/bin/sh
# Starts the web server's command. Its processes share metrics in a folder that must be empty at start,
# but a volume outlives the containers of its pod.
set -eu
[ -z "${PROMETHEUS_MULTIPROC_DIR:-}" ] || rm -f "$PROMETHEUS_MULTIPROC_DIR"/*.db
exec "$@"
