"""How much each teacher counts on each example."""

from mtbkd.weights.rules import Weighting as Weighting
from mtbkd.weights.rules import entropy_weights as entropy_weights
from mtbkd.weights.rules import uniform_weights as uniform_weights
from mtbkd.weights.stacking import fit_stacked as fit_stacked
