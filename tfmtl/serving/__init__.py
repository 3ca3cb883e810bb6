"""Serving: export to a checked version, publishing, verification, latency."""

from tfmtl.serving.export import Export, ExportError, export
from tfmtl.serving.latency import Comparison, Latency, compare_latency, latency
from tfmtl.serving.model_config import label, rollback
from tfmtl.serving.publish import DiskFullError, versions
from tfmtl.serving.scan import Scan, Stored, scan
from tfmtl.serving.session import CppSessionError, run_in_cpp_session
from tfmtl.serving.tables import TableError
from tfmtl.serving.upload import upload
from tfmtl.serving.verify import Verification, verify

__all__ = [
    "Comparison",
    "CppSessionError",
    "DiskFullError",
    "Export",
    "ExportError",
    "Latency",
    "Scan",
    "Stored",
    "TableError",
    "Verification",
    "compare_latency",
    "export",
    "label",
    "latency",
    "rollback",
    "run_in_cpp_session",
    "scan",
    "upload",
    "verify",
    "versions",
]
