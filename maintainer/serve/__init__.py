"""The service: scheduled runs, and pages and metrics about them."""

from maintainer.serve.once import serve_once
from maintainer.serve.service import serve

__all__ = ["serve", "serve_once"]
