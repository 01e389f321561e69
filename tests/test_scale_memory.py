"""A run on files holds little of them in memory of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from memory import WATCH

WRITE = """
import sys, numpy as np, torch
from pathlib import Path
from mtbkd.outputs import TeacherOutputs
from mtbkd.outputs.store import save_outputs
folder, n, n_classes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random = torch.Generator().manual_seed(0)
values = torch.randn(4, n, n_classes, generator=random).sub_(n_classes**0.5)
names, ids = tuple("abcd"), tuple(f"x{i}" for i in range(n))
classes, mask = tuple(f"class {c}" for c in range(n_classes)), torch.ones(4, n, dtype=torch.bool)
save_outputs(folder / "store", TeacherOutputs(names, values, mask, ids, classes), "float16")
np.save(folder / "inputs.npy", torch.randn(n, 16, generator=random).numpy())
"""
TRAIN = (
    WATCH
    + """
import sys, numpy as np, torch
from mtbkd.data import make_dataset
from mtbkd import distill
from mtbkd import training
from mtbkd.inference.engines import SamplerSettings
from mtbkd import MapSettings, PriorSettings
from mtbkd.outputs.store import load_outputs


folder, training._PREPARED = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
import pyarrow.parquet
torch.nn.Linear(3, 3)(torch.randn(3, 3)).softmax(-1)
most = before = own()
threading.Thread(target=watch, daemon=True).start()
teachers = load_outputs(folder / "store")
data = make_dataset(
    np.load(folder / "inputs.npy", mmap_mode="r"), classes=teachers.classes, ids=teachers.ids
)
distill(
    torch.nn.Linear(16, len(teachers.classes)), data, teachers,
    prior=PriorSettings(weights="uniform"), modes=MapSettings(1, 2000),
    sampler=SamplerSettings("ensemble", draws=1), chains=1, out=folder / f"run-{sys.argv[2]}",
)
print(most - before)
"""
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_of_a_run_on_files_is_bounded(tmp_path):
    """Memory of the process's own; pages of mapped files are the system's to take back."""
    n_rows, n_classes = 300_000, 32

    def python(code: str, *arguments: object) -> str:
        command = [sys.executable, "-c", code, str(tmp_path), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    python(WRITE, n_rows, n_classes)
    everything = 4 * 4 * n_rows * n_classes
    # all of it in memory would come on top of the rest, which takes nearly as much and varies
    assert int(python(TRAIN, 0)) < 1.2 * everything
