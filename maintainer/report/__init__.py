"""Reports of runs: one Report value, and its forms."""

from maintainer.report.model import ActionReport, EntryTotal, IndexReport, Report, RequestReport

__all__ = ["ActionReport", "EntryTotal", "IndexReport", "Report", "RequestReport"]
