"""BuildKit's local cache directories: OCI image layouts on this machine."""

from maintainer.stores.local.directory import Directory, open_directory

__all__ = ["Directory", "open_directory"]
