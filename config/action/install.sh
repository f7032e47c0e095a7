#!/usr/bin/env bash
# The Action's own first step: unpacks what a release has added for this machine, or else installs
# this checkout and its locked dependencies into a separate environment. Needs PYTHON, RUNNER_TEMP and
# GITHUB_ACTION_PATH. STORE, if it is set, decides whether the SDK of a bucket or a container is one of them.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # these are for the job's own Python
export PIP_USER=0 # a pip.conf may say otherwise
unset PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV
unset UV_TARGET UV_PREFIX UV_CONSTRAINT UV_OVERRIDE UV_EXCLUDE UV_BUILD_CONSTRAINT UV_EXCLUDE_NEWER UV_SYSTEM_PYTHON UV_NO_BINARY

# Files of a killed run on this machine do not match the database that is restored next.
rm -f .maintainer/maintainer.db*

plain="$GITHUB_ACTION_PATH/config/action/requirements.txt"
lock="$plain"
[ "${STORE:-}" != configured ] || STORE="${MAINTAINER_STORE:-}" # the job's own
case "${STORE:-}" in
  s3:* | azblob:*) lock="$GITHUB_ACTION_PATH/config/extras/requirements.txt" ;;
esac

home="$RUNNER_TEMP/maintainer"
installed="$home/installed" # contains the list of what was installed
if [ -e "$installed" ] && [ "$(cat "$installed")" = "$lock" ]; then
  exit 0 # an earlier step of this job has installed it
fi
rm -f "$installed" # what it says is true no longer

machine="$("$PYTHON" -I -c 'import platform, sys, sysconfig
print(sys.implementation.cache_tag, sysconfig.get_platform(), platform.libc_ver()[0], sep="-")')"
bundle="$GITHUB_ACTION_PATH/config/action/bundle/$machine.tar.gz"
if [ -f "$bundle" ] && [ "$lock" = "$plain" ]; then
  rm -rf "$home"
  mkdir -p "$home/bundle" "$home/venv/bin"
  tar -xzf "$bundle" -C "$home/bundle"
  printf '#!/usr/bin/env bash\nexec %q -I %q "$@"\n' "$PYTHON" "$home/bundle/start.py" \
    >"$home/venv/bin/maintainer"
  chmod +x "$home/venv/bin/maintainer"
  printf '%s' "$lock" >"$installed"
  exit 0
fi

"$PYTHON" -m venv --clear --without-pip "$home/venv"
with_pip() {
  "$PYTHON" -m pip --python "$home/venv/bin/python" --disable-pip-version-check --quiet install "$@"
}
# uv is quick, but it does not read pip's configuration, such as the address of a mirror.
install() {
  "$home/venv/bin/uv" --no-config --quiet pip install --python "$home/venv/bin/python" "$@" || with_pip "$@"
}
locked=(--require-hashes --only-binary :all:)
with_pip "${locked[@]}" --no-compile -r "$GITHUB_ACTION_PATH/config/action/uv.txt"
install "${locked[@]}" -r "$lock"
install --no-deps --no-index --no-build-isolation "$GITHUB_ACTION_PATH"
printf '%s' "$lock" >"$installed"
