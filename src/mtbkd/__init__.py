"""Several teacher models in, one small Bayesian student out that knows when it does not know."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtbkd.app.python.distilling import distill as distill
    from mtbkd.app.python.posterior import Posterior as Posterior
    from mtbkd.data import Dataset as Dataset
    from mtbkd.data import make_dataset as make_dataset
    from mtbkd.distillation.posterior import load_posterior as load_posterior
    from mtbkd.errors import InputError as InputError
    from mtbkd.estimators import DistilledClassifier as DistilledClassifier
    from mtbkd.estimators import DistilledRegressor as DistilledRegressor
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

__version__ = "0.1.0"

_PLACES = {
    "app.python.distilling": ("distill",),
    "app.python.posterior": ("Posterior",),
    "data": ("Dataset", "make_dataset"),
    "distillation.posterior": ("load_posterior",),
    "errors": ("InputError",),
    "estimators": ("DistilledClassifier", "DistilledRegressor"),
    "inference.engines": ("SamplerSettings",),
    "inference.modes": ("MapSettings",),
    "outputs.aligned": ("TeacherOutputs", "align", "make_table", "make_top_table"),
    "predictive": ("LabelPredictive", "NumberPredictive", "Predictive"),
    "prior.settings": ("PAPER", "PriorSettings"),
}
_ROOMS = ("data", "estimators", "explain", "inference", "inputs", "metrics", "observation")
_ROOMS += ("outputs", "predictive", "prior", "student", "teachers", "training", "types", "weights")
_PLACE = {name: place for place, names in _PLACES.items() for name in names}
__all__ = tuple(_PLACE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name, or a room such as `mtbkd.teachers`, when it is first asked for."""
    if name in _PLACE:
        found = getattr(import_module(f"mtbkd.{_PLACE[name]}"), name)
    elif name in _ROOMS:
        found = import_module(f"mtbkd.{name}")
    else:
        raise AttributeError(f"module 'mtbkd' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Everything public, imported yet or not."""
    return sorted({*globals(), *_PLACE, *_ROOMS})
