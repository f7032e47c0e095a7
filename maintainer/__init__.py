"""A garbage collector for BuildKit's build caches."""

__version__ = "0.1.0"

REPOSITORY = "OWNER/maintainer"
"""Where this project is on GitHub. `make docs` copies it to everything else that names it."""
COMMIT = ""
"""The commit of a release; release.yml fills it in."""
