"""Serving: export to a SavedModel, static scan, TensorFlow's C++ session, latency."""

from tfmtl.serving.export import Export, ExportError, export
from tfmtl.serving.latency import Comparison, Latency, compare_latency, latency
from tfmtl.serving.publish import versions
from tfmtl.serving.scan import Scan, Stored, scan
from tfmtl.serving.session import CppSessionError, run_in_cpp_session

__all__ = [
    "Comparison",
    "CppSessionError",
    "Export",
    "ExportError",
    "Latency",
    "Scan",
    "Stored",
    "compare_latency",
    "export",
    "latency",
    "run_in_cpp_session",
    "scan",
    "versions",
]
