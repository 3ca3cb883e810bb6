"""Random recipes are those of the fold's tests."""

import sys
from pathlib import Path

FOLDING = str(Path(__file__).resolve().parents[1] / "folding")
if FOLDING not in sys.path:
    sys.path.append(FOLDING)
