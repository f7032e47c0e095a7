"""The service: runs by themselves, and pages and metrics that tell how it is going."""

from maintainer.serve.once import serve_once
from maintainer.serve.service import serve

__all__ = ["serve", "serve_once"]
