"""How a student's outputs meet labels and teachers: one file for each family of what is predicted.

Everything that differs between families is a method of its `Outcome`; everything above (posterior,
chains, curvature) is the same for all of them.
"""

from __future__ import annotations

from mtbkd.observation.base import Kind as Kind
from mtbkd.observation.base import Names as Names
from mtbkd.observation.base import Observation as Observation
from mtbkd.observation.base import Outcome as Outcome
from mtbkd.observation.base import Said as Said
from mtbkd.observation.binary import BINARY as BINARY
from mtbkd.observation.categorical import CATEGORICAL as CATEGORICAL
from mtbkd.observation.categorical import Categorical as Categorical
from mtbkd.observation.classes import CLASSES as CLASSES
from mtbkd.observation.gaussian import GAUSSIAN as GAUSSIAN
from mtbkd.observation.top import Top as Top
from mtbkd.types import Family

OUTCOMES: dict[Family, Outcome] = {
    "classification": CLASSES,
    "multilabel": BINARY,
    "regression": GAUSSIAN,
}
"""By family, as files and data sets name it."""
