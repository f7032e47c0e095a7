"""Keeps BuildKit's build cache whole: probe, record, mark, plan, rewrite, sweep, report."""

__version__ = "0.1.0"
