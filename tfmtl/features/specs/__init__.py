"""What a feature is: a frozen description with what it learned of the data."""

from tfmtl.features.specs.bucketized import Bucketized
from tfmtl.features.specs.categorical import Categorical
from tfmtl.features.specs.cross import Cross
from tfmtl.features.specs.numeric import Numeric
from tfmtl.features.specs.sequence import Sequence

Feature = Numeric | Bucketized | Categorical | Sequence | Cross

__all__ = ["Bucketized", "Categorical", "Cross", "Feature", "Numeric", "Sequence"]
