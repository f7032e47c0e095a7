#!/usr/bin/env bash
# The last step of a release: moves the tag of the major version, such as v0, to a commit that adds
# the archives in bundle/ to this one, so that the Action at that tag need not install anything. Needs
# GH_TOKEN, GITHUB_REPOSITORY, GITHUB_REF_NAME and GITHUB_SHA.
set -euo pipefail

git="repos/$GITHUB_REPOSITORY/git"
create() { # WHAT, as JSON on stdin
  gh api --method POST "$git/$1" --input - --jq .sha
}

entries=""
for archive in bundle/*.tar.gz; do
  blob="$({
    printf '{"encoding":"base64","content":"'
    base64 --wrap=0 "$archive"
    printf '"}'
  } | create blobs)"
  path="config/action/$archive"
  entries+="${entries:+,}{\"path\":\"$path\",\"mode\":\"100644\",\"type\":\"blob\",\"sha\":\"$blob\"}"
done
base="$(gh api "$git/commits/$GITHUB_SHA" --jq .tree.sha)"
tree="$(printf '{"base_tree":"%s","tree":[%s]}' "$base" "$entries" | create trees)"
message="Add what the Action of $GITHUB_REF_NAME unpacks instead of installing"
commit="$(printf '{"message":"%s","tree":"%s","parents":["%s"]}' "$message" "$tree" "$GITHUB_SHA" \
  | create commits)"

major="${GITHUB_REF_NAME%%.*}"
if gh api "$git/ref/tags/$major" >/dev/null 2>&1; then
  gh api --method PATCH "$git/refs/tags/$major" -f "sha=$commit" -F force=true >/dev/null
else
  gh api --method POST "$git/refs" -f "ref=refs/tags/$major" -f "sha=$commit" >/dev/null
fi
