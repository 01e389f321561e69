"""Rows labelled in a second, beside a bare loop that calls the model at the same batch size.

    python benchmarks/teach.py

The teachers are MLPs 64-256-10 and 64-1024-10 on one thread, the first the fastest that anyone
would label with, so what the shards, hashes and checks cost shows; it is printed in microseconds
for each row too, since it does not grow with the teacher. Times are CPU time. The ids are checked
once, before, with the data. Rounds of both alternate in one run; the figure that counts is the
median of the ratios of their throughputs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.label import label
from mtbkd.teachers.torch_module import from_torch

ROWS, BATCH, ROUNDS = 200_000, 256, 5
WIDTHS = (256, 1024)


def bare(module: nn.Module, inputs: torch.Tensor) -> float:
    begin = time.process_time()
    with torch.inference_mode():
        outputs = [module(inputs[start : start + BATCH]) for start in range(0, ROWS, BATCH)]
    torch.cat(outputs)
    return time.process_time() - begin


def ours(module: nn.Module, source: Examples) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        teacher = from_torch("mlp", module, classes=range(10), device="cpu")
        label(teacher, source, Path(folder) / "mlp", batch_size=BATCH)
        return time.process_time() - begin


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = torch.randn(ROWS, 64)
    ids = [f"example-{row}" for row in range(ROWS)]
    source = Examples(ids, lambda start, stop: inputs[start:stop])
    for width in WIDTHS:
        print(f"MLP 64-{width}-10")
        module = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)).eval()
        compare(module, inputs, source)


def compare(module: nn.Module, inputs: torch.Tensor, source: Examples) -> None:
    bare(module, inputs)
    ours(module, source)
    pairs = [(bare(module, inputs), ours(module, source)) for _ in range(ROUNDS)]
    ratios = [b / o for b, o in pairs]
    for b, o in pairs:
        print(f"bare {ROWS / b:10,.0f} rows/s   label {ROWS / o:10,.0f} rows/s   {b / o:.3f}")
    cost = statistics.median(o - b for b, o in pairs) / ROWS
    alone = statistics.median(b for b, _ in pairs) / ROWS
    print(f"labelling costs {cost * 1e6:.2f} us a row, the teacher {alone * 1e6:.2f}")
    print(f"median ratio of throughputs: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
