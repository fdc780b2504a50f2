#!/usr/bin/env bash
# Makes .venv from hashed lock files and resolves the Java artefacts. Run by `make setup`; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%-78s\n' "$1" >&2; }
since() { printf '%ds' $((SECONDS - $1)); }

python=${PYTHON:-python3.11}
if ! command -v "$python" >/dev/null; then
  printf 'preflight: There is no %s here.\n  -> apt-get install python3.11 python3.11-venv, or make setup PYTHON=/path/to/python3.11\n' "$python" >&2
  exit 2
fi
"$python" infra/preflight.py

start=$SECONDS
say "[1/8] environment      installing $(grep -c '^[a-z].*==' requirements.lock) locked packages (about a minute) ..."
# Also where .venv is there: the sync below takes away the pip that installs uv, and a set-up may have been cut short.
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
.venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock requirements-bootstrap.lock
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps -e .
# Feast takes twice as long to import without compiled files, and some machines never write them.
PYTHONDONTWRITEBYTECODE='' .venv/bin/python -m compileall -q .venv/lib/python3.11/site-packages/feast >/dev/null
say "[1/8] environment      lock verified, $(grep -c '^[a-z].*==' requirements.lock) packages  $(since "$start")"

start=$SECONDS
say "[2/8] java artefacts   resolving ..."
jars=$(.venv/bin/python -m coeval_pipelines.local.artefacts)
say "[2/8] java artefacts   ${jars}  $(since "$start")"
