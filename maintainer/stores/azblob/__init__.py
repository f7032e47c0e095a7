"""Containers of Azure Blob Storage to which BuildKit exports with `type=azblob`."""
