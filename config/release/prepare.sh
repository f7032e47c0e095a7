#!/usr/bin/env bash
# The first step of a release: writes the commit into the package, so that `maintainer init` can pin
# it, makes the links of the README absolute, and writes the notes of this version to notes.md. Needs
# GITHUB_REF_NAME, the tag, GITHUB_SHA and GITHUB_REPOSITORY.
set -euo pipefail

version="${GITHUB_REF_NAME#v}"
module=maintainer/__init__.py
if ! grep -qxF "__version__ = \"$version\"" "$module"; then
  echo "::error title=release::the tag is $GITHUB_REF_NAME, but $module names another version"
  exit 1
fi
if ! grep -qxF "REPOSITORY = \"$GITHUB_REPOSITORY\"" "$module"; then
  echo "::error title=release::this is $GITHUB_REPOSITORY, but $module names another repository: change it, run \`make docs\` and commit"
  exit 1
fi
if [[ ! "$GITHUB_SHA" =~ ^[0-9a-f]{40}$ ]]; then
  echo "::error title=release::GITHUB_SHA is not a commit"
  exit 1
fi
sed "s/^COMMIT = \"\"$/COMMIT = \"$GITHUB_SHA\"/" "$module" >"$module.new"
mv "$module.new" "$module"

# What reads the package's metadata, such as pypi.org, has no other file of the repository.
site="github.com/$GITHUB_REPOSITORY/blob/$GITHUB_REF_NAME"
images="raw.githubusercontent.com/$GITHUB_REPOSITORY/$GITHUB_REF_NAME"
sed -E -e "s|\\]\\(([^):#]+\\.png)\\)|](https://$images/\\1)|g" \
  -e "s|\\]\\(([^):#][^):]*)\\)|](https://$site/\\1)|g" README.md >README.md.new
mv README.md.new README.md

awk -v heading="## [$version]" '
  index($0, "## [") == 1 { inside = index($0, heading) == 1; next }
  inside { print }
' CHANGELOG.md | sed '/./,$!d' >notes.md
if [ ! -s notes.md ]; then
  echo "::error title=release::CHANGELOG.md has nothing about $version"
  exit 1
fi
