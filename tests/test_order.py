"""Examples that lie in a large file are read block by block, each once in every pass."""

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from memory import WATCH
from torch import nn

from mtbkd.data import make_dataset
from mtbkd.distillation.distill import distill
from mtbkd.inference import order as order_module
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.order import shuffled

CPU = torch.device("cpu")


def batches(n_rows: int, block: int, size: int, n: int, chains: int = 2) -> torch.Tensor:
    rows = shuffled(n_rows, 2**20 // block, size, chain_generators(0, 0, chains, CPU))
    return torch.stack(list(islice(rows, n)))


@pytest.mark.parametrize(("block", "size"), [(4, 7), (1, 10), (16, 250), (1000, 50)])
def test_each_row_comes_once_in_every_pass(block, size):
    n_rows = 1000
    passes = 3 * size
    found = batches(n_rows, block, size, passes * n_rows // size).movedim(1, 0).flatten(1)
    for chain in found:
        for one in chain.split(n_rows):
            assert one.sort().values.tolist() == list(range(n_rows))
        assert not torch.equal(chain[:n_rows], chain[n_rows : 2 * n_rows])
    assert not torch.equal(found[0], found[1])


def test_a_chain_reads_the_same_alone():
    assert torch.equal(batches(1000, 4, 7, 20, chains=1)[:, 0], batches(1000, 4, 7, 20)[:, 0])


def test_few_blocks_are_read_at_a_time_and_neighbours_do_not_come_together():
    n_rows, block, size = 100_000, 10, 64
    rows = batches(n_rows, block, size, 10, chains=1)[:, 0]
    assert len(set((rows // block).flatten().tolist())) == 64  # of 10,000
    assert (rows[0].diff().abs() == 1).sum() < 10


def run(inputs, folder=None):
    torch.manual_seed(0)
    labels = np.arange(200) % 3
    data = make_dataset(inputs, classes=("a", "b", "c"), labels=labels)
    found = distill(
        nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)),
        data,
        None,
        modes=MapSettings(epochs=3, batch_size=16),
        sampler=SamplerSettings("sghmc", burn_in=8, draws=4, thinning=2, batch_size=16),
        chains=2,
        out=folder,
    )
    return data, found


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_mapped_file_gives_the_bytes_that_memory_gives(kind, tmp_path, monkeypatch):
    inputs = np.random.default_rng(0).integers(0, 256, (200, 2, 3, 3)).astype(kind)
    np.save(tmp_path / "inputs.npy", inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    _, drawn_one_by_one = run(inputs)
    monkeypatch.setattr("mtbkd.inference.modes.LARGE", 100)
    monkeypatch.setattr(order_module, "_BLOCK", 400)
    _, expected = run(inputs)
    data, found = run(mapped, tmp_path / "run")
    assert data.inputs.data_ptr() == mapped.ctypes.data
    assert torch.equal(found.modes, expected.modes)
    assert torch.equal(found.samples.segments[0], expected.samples.segments[0])
    assert np.array_equal(found.predict(mapped).probs, expected.predict(inputs).probs)
    assert not torch.equal(found.modes, drawn_one_by_one.modes)


TRAIN = (
    WATCH
    + """
import sys, numpy as np, torch
from torch import nn
from mtbkd import MapSettings, distill, make_dataset
from mtbkd.inference.engines import SamplerSettings
from mtbkd.student.pixels import pixels_like


torch.set_num_threads(1)
inputs = np.load(sys.argv[1], mmap_mode="r")
nn.Conv2d(3, 2, 3)(torch.randn(3, 3, 8, 8)).softmax(-1)
most = before = own()
threading.Thread(target=watch, daemon=True).start()
data = make_dataset(inputs, classes="ab", labels=np.arange(len(inputs)) % 2)
frozen = sys.argv[2] == "frozen"
size = 3 if frozen else 8  # few products: what is measured is memory
head = (nn.Conv2d(3, 4, size, stride=size), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
first = (nn.AvgPool2d(8),) if frozen else ()
network = nn.Sequential(pixels_like(data.inputs), *first, *head)
posterior = distill(
    network, data, None, modes=MapSettings(1, 1000), chains=2,
    sampler=SamplerSettings("sghmc", burn_in=5, draws=2, thinning=2, batch_size=256),
)
posterior.predict(inputs)
print(most - before)
"""
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_of_a_run_on_a_large_file_is_bounded(tmp_path):
    """Memory of the process's own; pages of mapped files are the system's to take back.

    What is freed goes back to the system at once, so that it is not counted.
    """
    n_rows = 100_000  # 300 MB, more than what is shuffled as a whole
    path = tmp_path / "inputs.npy"
    whole = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(n_rows, 3, 32, 32))
    chance = np.random.default_rng(0)
    for start in range(0, n_rows, 10_000):
        whole[start : start + 10_000] = chance.integers(0, 256, (10_000, 3, 32, 32), dtype=np.uint8)
    whole.flush()
    freed = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    for first in ("frozen", "none"):
        command = [sys.executable, "-c", TRAIN, str(path), first]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=freed)
        assert int(done.stdout) < 180 * 2**20, first
