#!/usr/bin/env bash
# The Action's run. Inputs come as variables, so that no text of anybody's becomes shell: those that
# are settings as MAINTAINER_…, which maintainer reads itself, and these.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # the job's own business

options=(--github)
fail() {
  echo "::error title=maintainer::input $1 is neither true nor false"
  echo "status=failed" >>"${GITHUB_OUTPUT:-/dev/null}"
  exit 2
}
flag() { # NAME VALUE
  case "$2" in
    true) options+=("--$1") ;;
    false) ;;
    *) fail "$1" ;;
  esac
}
flag dry-run "$INPUT_DRY_RUN"
flag no-sweep "$INPUT_NO_SWEEP"
flag accept-loss "$INPUT_ACCEPT_LOSS"
case "$INPUT_SAVE_DATABASE" in
  true | false) ;; # another step's business
  *) fail save-database ;;
esac

# In the workspace, because the cache action takes a file for the same only if its path is; git and
# the job need not see it.
mkdir -p .maintainer
echo "*" >.maintainer/.gitignore

exec "$RUNNER_TEMP/maintainer/venv/bin/maintainer" gc "${options[@]}"
