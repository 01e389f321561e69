"""Public data, fetched and checked."""

from mtbkd.downloads.datasets import DATASETS as DATASETS
from mtbkd.downloads.datasets import data_root as data_root
from mtbkd.downloads.datasets import get as get
from mtbkd.downloads.datasets import listing as listing
from mtbkd.downloads.datasets import terms as terms
from mtbkd.downloads.fetching import Patience as Patience
