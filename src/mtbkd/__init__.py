"""Several teacher models in, one small Bayesian student out that knows when it does not know."""

from mtbkd.data import Dataset as Dataset
from mtbkd.data import make_dataset as make_dataset
from mtbkd.distillation.distill import Posterior as Posterior
from mtbkd.distillation.distill import distill as distill
from mtbkd.distillation.distill import load_posterior as load_posterior
from mtbkd.inference.engines import SamplerSettings as SamplerSettings
from mtbkd.inference.modes import MapSettings as MapSettings
from mtbkd.outputs.aligned import TeacherOutputs as TeacherOutputs
from mtbkd.outputs.aligned import align as align
from mtbkd.outputs.aligned import make_table as make_table
from mtbkd.outputs.aligned import make_top_table as make_top_table
from mtbkd.predictive import LabelPredictive as LabelPredictive
from mtbkd.predictive import NumberPredictive as NumberPredictive
from mtbkd.predictive import Predictive as Predictive
from mtbkd.prior.settings import PAPER as PAPER
from mtbkd.prior.settings import PriorSettings as PriorSettings
from mtbkd.types import InputError as InputError

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The estimators, which need scikit-learn, only when they are asked for."""
    if name in ("DistilledClassifier", "DistilledRegressor"):
        from mtbkd import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'mtbkd' has no attribute {name!r}")
