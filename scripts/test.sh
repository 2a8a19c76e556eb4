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

step "format and lint"; ruff format --check mesh sidecar services tests benchmarks; ruff check mesh sidecar services tests benchmarks
step "types"; mypy
step "layers"; lint-imports
step "contracts"; buf lint
if [ $# != 0 ]; then
  step "tests"; exec pytest -q tests "$@"
fi

# Three groups beside each other. What only computes has a lower priority, so that it disturbs no timing; what runs whole
# clusters mostly waits for them. Every cluster has a loopback network or namespaces of its own.
others=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$others"' EXIT
trap 'exit 130' INT TERM
step "beside the rest, what only computes (see $others/computing) and whole clusters (see $others/clusters)"
(
  nice -n 15 pytest -q tests/raft --cov=mesh/raft --cov-branch --cov-report= --cov-fail-under=100
  nice -n 15 pytest -q tests/sim tests/explorer tests/mutants
) >"$others/computing" 2>&1 &
computing=$!
pytest -q --durations=10 tests/integration tests/chaos tests/demo tests/failpoints >"$others/clusters" 2>&1 &
clusters=$!

step "all other tests"
failed=0
pytest -q --durations=10 tests --ignore=tests/raft --ignore=tests/sim --ignore=tests/explorer --ignore=tests/mutants \
  --ignore=tests/integration --ignore=tests/chaos --ignore=tests/demo --ignore=tests/failpoints || failed=$?
wait $clusters || failed=$?
step "whole clusters"; cat "$others/clusters"
wait $computing || failed=$?
step "consensus core with every branch, simulator, explorer, mutants"; cat "$others/computing"
exit $failed
