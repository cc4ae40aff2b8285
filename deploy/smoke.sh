#!/usr/bin/env bash
# Walk the main job against the running compose stack, then look at how the containers are closed.
# Leaves nothing but a tenant named smoke-<time>. usage: deploy/smoke.sh   (DOCKER=podman ...)
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/.."
compose() { "${DOCKER:-docker}" compose "$@"; }
fail() { echo "smoke: $*" >&2; exit 1; }
inside() { compose exec -T "$1" python -I -c "$2"; }

url=http://$(compose port api 8000)
storage=http://$(compose port seaweedfs 8333)
# The key is handed over by standard input: a command line can be read by everybody.
key=$(compose exec -T api gliaforge bootstrap --tenant "smoke-$(date +%s)")
printf '%s\n' "$key" | python3 deploy/smoke.py "$url" "$storage"

status='
import sys, urllib.error, urllib.request
def status(url, method="GET"):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
'
inside worker-cpu "$status
found = [status('http://seaweedfs:8888/'), status('http://seaweedfs:8888/x', 'PUT'), status('http://seaweedfs:8333/gliaforge')]
sys.exit(0 if found == [401, 401, 403] else f'the storage answers {found} to a stranger')"
inside worker-cpu "
import socket
with socket.create_connection(('valkey', 6379), 5) as broker:
    broker.sendall(b'PING\r\n')
    assert broker.recv(100).startswith(b'-NOAUTH'), 'the broker answers without a password'"
inside api "
import importlib.util
found = [name for name in ('torch', 'numpy', 'pip') if importlib.util.find_spec(name)]
assert not found, f'the API image holds {found}'" 2>/dev/null || fail "the API image holds too much"

for service in $(compose ps --services); do
  id=$(compose ps -q "$service")
  [ -n "$id" ] || continue
  closed=$("${DOCKER:-docker}" inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}' "$id")
  [ "$closed" = "true [ALL] [no-new-privileges:true]" ] || fail "$service is open: $closed"
  health=$("${DOCKER:-docker}" inspect -f '{{.State.Health.Status}}' "$id")
  [ "$health" = healthy ] || fail "$service is $health"
  user=$(compose exec -T "$service" id -u)
  [ "$user" != 0 ] || fail "$service runs as root"
  if compose exec -T "$service" sh -c 'touch /usr/probe' 2>/dev/null; then
    fail "$service can write to its root file system"
  fi
done
echo "smoke: every container is healthy, read-only, without capabilities and without root"
