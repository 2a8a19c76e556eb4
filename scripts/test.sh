#!/bin/sh
# Everything that must hold before a change lands. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PATH

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  missing=""
  command -v ip >/dev/null || missing="$missing iproute2"
  command -v setpriv >/dev/null || missing="$missing util-linux"
  command -v strace >/dev/null || missing="$missing strace"
  command -v nft >/dev/null || missing="$missing nftables"
  ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
  ldconfig -p | grep -q libfuse || missing="$missing libfuse3-3"
  if [ -n "$missing" ]; then
    step "installing$missing for the tests"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  fi
fi

# The ends of the range of PostgreSQL's versions, beside what does not need them.
versions=$(mktemp)
sh scripts/postgres.sh 13 17 >"$versions" 2>&1 &
fetching=$!

step "format and lint"; ruff format --check mesh sidecar services tests benchmarks; ruff check mesh sidecar services tests benchmarks
step "types"; mypy
step "layers"; lint-imports
step "contracts"; buf lint
wait $fetching || true
cat "$versions"; rm -f "$versions"
if [ $# != 0 ]; then
  step "tests"; exec pytest -q tests "$@"
fi

# What only computes runs beside what waits for real programs, and takes only what those leave of the processors: it must
# disturb no timing.
beside=$(mktemp)
step "beside the rest: consensus core with every branch, simulator, explorer, mutants (see $beside)"
idle() { chrt --idle 0 "$@"; }
chrt --idle 0 true 2>/dev/null || idle() { nice -n 19 "$@"; }
(
  idle pytest -q tests/raft --cov=mesh/raft --cov-branch --cov-report= --cov-fail-under=100
  idle pytest -q tests/sim tests/explorer tests/mutants
) >"$beside" 2>&1 &
computing=$!
trap 'kill $computing 2>/dev/null || true; rm -f "$beside"' EXIT
trap 'exit 130' INT TERM

step "tests with real parts"
failed=0
pytest -q --durations=15 tests --ignore=tests/raft --ignore=tests/sim --ignore=tests/explorer --ignore=tests/mutants || failed=$?
wait $computing || failed=$?
step "consensus core with every branch, simulator, explorer, mutants"; cat "$beside"
exit $failed
