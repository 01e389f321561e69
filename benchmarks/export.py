"""What an exported student costs: many draws beside one, and few draws beside all.

    python benchmarks/export.py heads                # 64 draws against one, onnxruntime, one thread
    python benchmarks/export.py heads --sizes 64 64 10 --draws 64
    python benchmarks/export.py curve runs/digits    # draws against distance and milliseconds

Both sides of a ratio are timed in turn, batch by batch, and medians are compared. Draws of `heads`
are random: what they say does not change what they cost. `product` is the cost of the draws' logits
alone; `answer` that of probabilities, uncertainties and intervals too. `curve` leaves flags out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from draws import scores
from torch import Tensor, nn

from mtbkd.app.export.answers import ANSWERS
from mtbkd.app.export.graph import quantised, to_onnx
from mtbkd.app.export.stack import Stack
from mtbkd.app.folder import read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import mlp
from mtbkd.app.run import stages
from mtbkd.distillation.posterior import Posterior
from mtbkd.errors import need

BATCHES, SECONDS = (1, 1000), 2.0
NUMBERS = (1, 2, 4, 8, 16, 32, 64)


class Head(nn.Module):
    """Logits of every draw, or the answers of all together."""

    def __init__(self, stack: nn.Module, family: Any, units: Any = None) -> None:
        super().__init__()
        self.stack, self.family, self.units = stack, family, units

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """From shape (example, feature) to what is compared."""
        draws = self.stack(inputs)
        if self.family is None:
            return (draws,)
        return tuple(ANSWERS[self.family](draws, 0.9, "mean", self.units).values())


def session_of(head: nn.Module, example: Tensor, *, int8: bool = False) -> Any:
    """An onnxruntime of one thread."""
    runtime = need("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    model = to_onnx(head.eval(), example, None).model_proto
    data = (quantised(model) if int8 else model).SerializeToString()
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def milliseconds(sessions: list[Any], inputs: np.ndarray) -> list[float]:
    """Median time of each session, which take turns."""
    for session in sessions:
        session.run(None, {"inputs": inputs})
    spent: list[list[float]] = [[] for _ in sessions]
    begun = perf_counter()
    while perf_counter() - begun < SECONDS or len(spent[0]) < 5:
        for session, own in zip(sessions, spent, strict=True):
            start = perf_counter()
            session.run(None, {"inputs": inputs})
            own.append(1000 * (perf_counter() - start))
    return [float(np.median(own)) for own in spent]


def heads(sizes: list[int], n_draws: int) -> None:
    """Print what so many draws of a head cost beside one."""
    network = mlp(sizes)
    generator = torch.Generator().manual_seed(0)
    draws = {
        name: torch.randn(n_draws, *p.shape, generator=generator) / p.shape[-1] ** 0.5
        for name, p in network.named_parameters()
    }
    one = {name: each[:1] for name, each in draws.items()}
    example = torch.randn(max(BATCHES), sizes[0], generator=generator)
    print(f"{n_draws} draws of a head {'-'.join(map(str, sizes))} against one, onnxruntime")
    for what, family in (("product", None), ("answer", "classification")):
        for int8 in (False, True):
            both = [
                session_of(Head(Stack(network, each), family), example[:3], int8=int8)
                for each in (draws, one)
            ]
            for rows in BATCHES:
                many, single = milliseconds(both, example[:rows].numpy())
                kind = "int8" if int8 else "float32"
                print(
                    f"{what:8} {kind:8} batch {rows:5}: {many:8.3f} ms against {single:7.3f} ms, "
                    f"{many / single:6.1f} x",
                    flush=True,
                )


def curve(out: Path) -> None:
    """Print how far few draws are from all, and what they cost."""
    config = read_run(out)
    recipe = find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.train.classes, out)
    task, posterior = stages.on_features(task, posterior, out)
    every = posterior.samples.n_chains * posterior.samples.n_draws
    inputs = task.test.inputs[: max(BATCHES)]
    print(f"{out}: {every} draws; distance is the mean total variation on the test inputs")
    for n in (*(n for n in NUMBERS if n < every), every):
        few = posterior if n == every else posterior.thin(n, task.train.inputs)
        nll, distance, _ = scores(posterior, few.samples, task.test)
        session = session_of(head_of(few), inputs[:3])
        single, many = (milliseconds([session], inputs[:k].numpy())[0] for k in (1, len(inputs)))
        print(
            f"{n:5} draws: distance {distance:.4f}, NLL {nll:.4f}, batch 1 {single:.3f} ms, batch "
            f"{len(inputs)} {many:.2f} ms",
            flush=True,
        )


def head_of(posterior: Posterior) -> Head:
    """The answers of a student behind its frozen part."""
    student = posterior.student
    draws = torch.cat([segment.flatten(0, 1) for segment in posterior.samples.segments])
    stack = Stack(student.head, student.unflatten(draws))
    return Head(stack, posterior.family, posterior.units)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    wide = commands.add_parser("heads")
    wide.add_argument("--sizes", type=int, nargs="+", default=[634, 64, 10])
    wide.add_argument("--draws", type=int, default=64)
    commands.add_parser("curve").add_argument("run", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.command == "heads":
        heads(asked.sizes, asked.draws)
    else:
        curve(asked.run)


if __name__ == "__main__":
    main()
