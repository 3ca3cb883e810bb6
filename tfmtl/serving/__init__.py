"""Serving: export to a checked version, publishing, verification, latency."""

from tfmtl.serving.against import Check
from tfmtl.serving.compared import Compared
from tfmtl.serving.converted import ConversionError, Converted
from tfmtl.serving.export import Export, ExportError, RegressionError, export
from tfmtl.serving.latency import Comparison, Latency, compare_latency, latency
from tfmtl.serving.lite_rt import to_lite_rt
from tfmtl.serving.loading import UnsafeModelError, load_model
from tfmtl.serving.model_config import label, rollback
from tfmtl.serving.onnx import to_onnx
from tfmtl.serving.pair import Pair
from tfmtl.serving.publish import DiskFullError, versions
from tfmtl.serving.quality import Quality
from tfmtl.serving.scan import Scan, Stored, scan
from tfmtl.serving.score_drift import Drift
from tfmtl.serving.session import CppSessionError, run_in_cpp_session
from tfmtl.serving.side_by_side import SideBySide, compare_versions
from tfmtl.serving.tables import TableError
from tfmtl.serving.thresholds import Thresholds
from tfmtl.serving.upload import UploadError, sweep_upload, upload
from tfmtl.serving.verify import Verification, verify

__all__ = [
    "Check",
    "Compared",
    "Comparison",
    "ConversionError",
    "Converted",
    "CppSessionError",
    "DiskFullError",
    "Drift",
    "Export",
    "ExportError",
    "Latency",
    "Pair",
    "Quality",
    "RegressionError",
    "Scan",
    "SideBySide",
    "Stored",
    "TableError",
    "Thresholds",
    "UnsafeModelError",
    "UploadError",
    "Verification",
    "compare_latency",
    "compare_versions",
    "export",
    "label",
    "latency",
    "load_model",
    "rollback",
    "run_in_cpp_session",
    "scan",
    "sweep_upload",
    "to_lite_rt",
    "to_onnx",
    "upload",
    "verify",
    "versions",
]
