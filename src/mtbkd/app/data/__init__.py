"""Public data, fetched and checked."""

from mtbkd.app.data.datasets import DATASETS as DATASETS
from mtbkd.app.data.datasets import data_root as data_root
from mtbkd.app.data.datasets import get as get
from mtbkd.app.data.datasets import listing as listing
from mtbkd.app.data.datasets import terms as terms
from mtbkd.app.data.fetching import Patience as Patience
