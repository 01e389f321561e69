"""The teacher-informed mixture prior: its density, what teachers tell apart, its settings."""

from mtbkd.prior.mixture import Prior as Prior
from mtbkd.prior.mixture import mixture_log_density as mixture_log_density
from mtbkd.prior.mixture import mixture_terms as mixture_terms
from mtbkd.prior.spaces import Spaces as Spaces
from mtbkd.prior.spaces import find_spaces as find_spaces
