"""Labelling with Ray Data gives the bytes of labelling without it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.label import label
from mtbkd.teachers.labelling.on_ray import label_on_ray
from mtbkd.types import InputError

pytest.importorskip("ray")

pytestmark = [
    pytest.mark.slow,
    # Ray, and libraries that it imports, warn about themselves: files left open by its helper
    # processes, defaults that will change, what they deprecate
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WEIGHTS = np.random.default_rng(0).normal(size=(5, 3))


def read(start: int, stop: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(100, 5))[start:stop]


def logits(inputs: np.ndarray) -> np.ndarray:
    if (inputs > 2.4).any():
        raise ValueError("too large")
    return inputs @ WEIGHTS


def make() -> Teacher:
    return from_callable("linear", logits, kind="logits", classes="abc")


def narrow() -> Teacher:
    return from_callable("linear", lambda x: x[:, :2], kind="logits", classes="abc")


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    import ray

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        runtime_env={
            "env_vars": {"PYTHONPATH": f"{Path('src').resolve()}:{Path(__file__).parent}"}
        },
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bytes_do_not_depend_on_who_labelled(ray, tmp_path):
    source = Examples([f"e{i}" for i in range(100)], read)
    settings = {"shard_rows": 16, "batch_size": 5, "most_failures": 0.1}
    alone = label(make(), source, tmp_path / "alone", **settings)
    assert 0 < len(alone.ids) < 100  # some failed
    for workers in (1, 2):
        seen = []
        table = label_on_ray(
            make,
            source,
            tmp_path / f"ray-{workers}",
            workers=workers,
            report=lambda *told, seen=seen: seen.append(told),
            **settings,
        )
        assert files(tmp_path / f"ray-{workers}") == files(tmp_path / "alone")
        assert torch.equal(table.values, alone.values)
        assert table.ids == alone.ids
        assert seen[0] == ("linear", 0, 100)
        assert seen[-1] == ("linear", 100, 100)
    # finished shards are kept, and one that was deleted is made again
    folder = tmp_path / "ray-2"
    (folder / "shard-00003.safetensors").unlink()
    before = {p.name: p.stat().st_mtime_ns for p in folder.glob("shard-*")}
    label_on_ray(make, source, folder, **settings)
    assert files(folder) == files(tmp_path / "alone")
    assert all((folder / name).stat().st_mtime_ns == when for name, when in before.items())
    with pytest.raises(InputError, match="Expected 3 columns from teacher 'linear'"):
        label_on_ray(narrow, source, tmp_path / "narrow", **settings)
