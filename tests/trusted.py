"""Imported by what forks processes, so that the certificates are read once and not in each."""

from maintainer.stores.http.client import trusted_certificates

trusted_certificates()
