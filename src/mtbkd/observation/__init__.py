"""How a student's outputs meet labels and teachers: one file for each family of what is predicted.

Every file makes an `Observation`, and everything above it (posterior, chains, curvature) is the
same for all of them.
"""

from __future__ import annotations

from mtbkd.observation.base import Observation as Observation
from mtbkd.observation.base import Said as Said
from mtbkd.observation.binary import BINARY as BINARY
from mtbkd.observation.categorical import CATEGORICAL as CATEGORICAL
from mtbkd.observation.categorical import categorical as categorical
from mtbkd.observation.gaussian import GAUSSIAN as GAUSSIAN
from mtbkd.observation.top import top as top

OBSERVATIONS: dict[str, Observation] = {
    "classification": CATEGORICAL,
    "multilabel": BINARY,
    "regression": GAUSSIAN,
}
"""By family, for teachers that tell all classes apart."""
