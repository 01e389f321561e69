"""The configuration of a run: read from YAML, checked as a whole, all faults at once."""

from mtbkd.app.config.own import OwnConfig as OwnConfig
from mtbkd.app.config.run import RunConfig as RunConfig
from mtbkd.app.config.run import build_config as build_config
from mtbkd.app.config.run import load_config as load_config
