#!/bin/sh
# Tests the database with each of these major versions of PostgreSQL: scripts/postgres_versions.sh 13 16
# Those that cannot be had are named with the reason; that is no failure.
set -eu
cd "$(dirname "$0")/.."
sh scripts/postgres.sh "$@"
failed=""
for major in "$@"; do
  named=build/postgres/$major/bin_dir
  [ -f "$named" ] || continue
  printf '\n\033[1m== PostgreSQL %s\033[0m\n' "$("$(cat "$named")/postgres" --version)"
  TRELLIS_TEST_POSTGRES=$(cat "$named") .venv/bin/pytest -q -m integration \
    tests/postgres/engine tests/database/test_versions.py || failed="$failed $major"
done
[ -z "$failed" ] || { printf 'failed with PostgreSQL%s\n' "$failed"; exit 1; }
