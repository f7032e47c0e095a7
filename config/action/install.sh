#!/usr/bin/env bash
# The Action's first step of its own: this checkout and its locked dependencies, in an environment
# that nothing else uses. Needs PYTHON, RUNNER_TEMP and GITHUB_ACTION_PATH.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # the job's own business
unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_CONSTRAINT PIP_REQUIREMENT PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV

# What a run that was killed has left on this machine does not go with what is restored next.
rm -f .maintainer/maintainer.db*

home="$RUNNER_TEMP/maintainer"
installed="$home/installed" # says from where
if [ -e "$installed" ] && [ "$(cat "$installed")" = "$GITHUB_ACTION_PATH" ]; then
  exit 0 # by an earlier step of this job
fi

"$PYTHON" -m venv --clear --without-pip "$home/venv"
install() {
  "$PYTHON" -m pip --python "$home/venv/bin/python" --disable-pip-version-check --quiet install "$@"
}
install --require-hashes --only-binary :all: -r "$GITHUB_ACTION_PATH/config/action/requirements.txt"
install --no-deps --no-index --no-build-isolation "$GITHUB_ACTION_PATH"
printf '%s' "$GITHUB_ACTION_PATH" >"$installed"
