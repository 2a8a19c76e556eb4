#!/bin/sh
# Generates Python stubs and their types for every contract into $1, as committed beside the .proto files.
set -eu
out=${1:?usage: scripts/gen.sh OUTPUT_FOLDER}
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PATH
# shellcheck disable=SC2046  # one argument a file
python -m grpc_tools.protoc -Iprotos \
  --python_out="$out" --mypy_out=quiet:"$out" \
  --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" \
  $(find protos -name '*.proto' | sort)
for folder in $(cd protos && find trellis -type d -not -name __pycache__ | sort); do
  : >"$out/$folder/__init__.py"
done
