"""BuildKit's local cache directories: OCI image layouts on this machine."""
