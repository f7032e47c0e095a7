"""What people read of a run: one Report value, and the forms that it takes."""

from maintainer.report.model import ActionReport, EntryTotal, IndexReport, Report, RequestReport

__all__ = ["ActionReport", "EntryTotal", "IndexReport", "Report", "RequestReport"]
