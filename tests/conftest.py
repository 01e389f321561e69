"""Shared by all tests: one thread, fixed property tests, the public data if it is there."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=40)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """No figure of a report is drawn: for tests that read something else of a page or a run."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda _, file, **__: file.write("<svg></svg>"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Where the public data sets lie."""
    folder = os.environ.get("MTBKD_DATA")
    if not folder:
        pytest.skip("set MTBKD_DATA to the folder of public data (see docs/data.md)")
    return Path(folder)
