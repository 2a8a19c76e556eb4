#!/bin/sh
# Sets up $VENV with Trellis and what it needs: `setup.sh run` to run it, `setup.sh dev` to develop it.
set -eu
what=${1:?usage: scripts/setup.sh run|dev}
venv=${VENV:-.venv}
python=${PYTHON:-python3}

say() { printf '\033[1mtrellis\033[0m  %s\n' "$*"; }
fail() { printf 'trellis: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not there. Install Python 3.11 or later (apt-get install python3)."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is older than 3.11. Name a newer one: make PYTHON=python3.12 …"

# Installs Debian packages where this user may; otherwise says what is missing.
need() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    fail "needs $*; as root: apt-get install $*"
  fi
}

if [ ! -x "$venv/bin/python" ]; then
  "$python" -c 'import ensurepip' 2>/dev/null || need python3-venv
  say "making $venv"
  "$python" -m venv "$venv"
fi

words=$(mktemp)
trap 'rm -f "$words"' EXIT
say "installing the packages of constraints.txt (a minute on a new machine)"
if [ "$what" = dev ]; then extras='.[dev,bench,postgres]'; else extras='.[postgres]'; fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$extras" 2>"$words" || {
  cat "$words" >&2; fail "pip could not install the packages; its words are above."
}
# xds-protos carries an old copy of opentelemetry/proto; whichever of the two is installed last wins.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt \
  --force-reinstall --no-deps opentelemetry-proto 2>"$words" || {
  cat "$words" >&2; fail "pip could not install opentelemetry-proto."
}
say "ready"
