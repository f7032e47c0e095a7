#!/usr/bin/env bash
# The last step of a release: moves the tag of the major version, such as v0, to this commit, so that
# the Action at that tag is this one. Needs GH_TOKEN, GITHUB_REPOSITORY, GITHUB_REF_NAME, GITHUB_SHA.
set -euo pipefail

major="${GITHUB_REF_NAME%%.*}"
refs="repos/$GITHUB_REPOSITORY/git/refs"
if gh api "$refs/tags/$major" >/dev/null 2>&1; then
  gh api --method PATCH "$refs/tags/$major" -f "sha=$GITHUB_SHA" -F force=true >/dev/null
else
  gh api --method POST "$refs" -f "ref=refs/tags/$major" -f "sha=$GITHUB_SHA" >/dev/null
fi
