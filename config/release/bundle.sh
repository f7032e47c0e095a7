#!/usr/bin/env bash
# Builds what the Action unpacks instead of installing: an archive of the locked packages and of the
# wheel in dist/, compiled, in bundle/. It is for the machine that most jobs run on, and for the
# version of PYTHON, which must be the Action's default.
set -euo pipefail

PYTHON="${PYTHON:-python}"
machine="$("$PYTHON" -I -c 'import sys; print(sys.implementation.cache_tag)')-linux-x86_64-glibc"
content="build/bundle"
pip() {
  "$PYTHON" -m pip --disable-pip-version-check --quiet install --no-compile --target "$content/lib" "$@"
}

rm -rf "$content"
pip --only-binary :all: --implementation cp --platform manylinux_2_28_x86_64 \
  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --require-hashes -r config/action/requirements.txt
pip --no-deps --no-index dist/*.whl
rm -rf "$content/lib/bin"
cp config/action/start.py "$content"
# The times of files do not count, so nothing is compiled again after unpacking.
"$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$content" "$content/lib"
mkdir -p bundle
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --directory "$content" . \
  | gzip -9 --no-name >"bundle/$machine.tar.gz"
