#!/usr/bin/env bash
# The Action's run. Inputs are passed as variables, so that no untrusted text becomes shell code.
# An input that is a setting, SETTING_…, becomes a variable that maintainer reads itself, MAINTAINER_…;
# without it, a variable of the job's own counts. This script reads the other inputs, INPUT_….
set -euo pipefail
unset PYTHONPATH PYTHONHOME # these are for the job's own Python

options=(--github)
fail() {
  echo "::error title=maintainer::input $1"
  echo "status=failed" >>"${GITHUB_OUTPUT:-/dev/null}"
  exit 2
}
flag() { # NAME VALUE
  case "$2" in
    true) options+=("--$1") ;;
    false) ;;
    *) fail "$1 must be true or false" ;;
  esac
}
flag dry-run "$INPUT_DRY_RUN"
flag no-sweep "$INPUT_NO_SWEEP"
flag accept-loss "$INPUT_ACCEPT_LOSS"
case "$INPUT_SAVE_DATABASE" in
  true | false) ;; # another step uses it
  *) fail "save-database must be true or false" ;;
esac

case "$MAINTAINER_DATABASE_KEY" in
  *"#"*) fail "database-key must not contain a #" ;; # Another key would find these databases.
esac
case "$SETTING_STORE" in
  "") fail "store is empty: leave it out to maintain GitHub's cache" ;;
esac
settings="CONFIG STORE GRACE SCOPES VERIFY_AFTER KEEP_ALIVE GENERATION_GAP MERGED_SCOPE MERGED_TAG
  REMEMBER_EXPORTS UNREADABLE_REFS RESERVATION_WAIT EXPORT_WAIT QUOTA ROOM MAX_INDEX_SIZE MAX_MERGE_SIZE
  MAX_REQUESTS DEADLINE REST_SHARE"
for name in $settings; do
  setting="SETTING_$name"
  value="${!setting-}"
  [ -n "$value" ] || continue
  case "$name=$value" in
    STORE=configured) ;;
    MERGED_SCOPE=none) options+=(--merged-scope=) ;; # A variable that is empty would leave the default.
    MERGED_TAG=none) options+=(--merged-tag=) ;;
    *) export "MAINTAINER_$name=$value" ;;
  esac
done
case "${MAINTAINER_STORE:-github}" in
  github) ;;
  *) unset ACTIONS_RUNTIME_TOKEN ACTIONS_RESULTS_URL ACTIONS_CACHE_URL ;; # Another store needs none of them.
esac

# In the workspace, because the cache action restores a file only under the same path; hidden from
# git and from the job.
mkdir -p .maintainer
echo "*" >.maintainer/.gitignore

exec "$RUNNER_TEMP/maintainer/venv/bin/maintainer" gc "${options[@]}"
