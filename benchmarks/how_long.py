"""What a step of sampling costs, by examples and hidden units: `python benchmarks/how_long.py`."""

from __future__ import annotations

from time import perf_counter, process_time

import torch
from torch import nn

from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.prior.settings import Prior
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.weights.rules import uniform_weights

INPUTS, CLASSES, TEACHERS, CHAINS = 48, 10, 3, 4
EXAMPLES, HIDDEN = (500, 6_000, 50_000), (32, 64, 128)
_SECONDS = 2.0


def cost(n: int, hidden: int) -> tuple[float, float, int]:
    """Milliseconds of a step over all examples, of CPU and by the clock, and parameters."""
    generator = torch.Generator().manual_seed(0)
    teachers = torch.randn(TEACHERS, n, CLASSES, generator=generator).log_softmax(-1)
    data = TrainingSet(
        torch.randn(n, INPUTS, generator=generator),
        torch.randint(-1, CLASSES, (n,), generator=generator),
        teachers,
        uniform_weights(torch.ones(TEACHERS, n, dtype=torch.bool)),
    )
    layers = nn.Linear(INPUTS, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES)
    student = make_student(nn.Sequential(*layers))
    own = chain_generators(0, 0, CHAINS, torch.device("cpu"))
    batch = Minibatches(data, Prior(), own)(n)
    gradient = in_parts(posterior_gradient(student, n, Prior(), data.observation))
    position = 0.1 * torch.randn(CHAINS, student.n_parameters, generator=generator)
    gradient(position, batch)
    begun, spent, steps = perf_counter(), process_time(), 0
    while perf_counter() - begun < _SECONDS:
        gradient(position, batch)
        steps += 1
    passed, used = perf_counter() - begun, process_time() - spent
    return 1000 * used / steps, 1000 * passed / steps, student.n_parameters


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| examples | hidden | parameters | CPU ms | ms by the clock | steps in 2 min |")
    print("|---|---|---|---|---|---|")
    for n in EXAMPLES:
        for hidden in HIDDEN:
            cpu, clock, size = cost(n, hidden)
            steps = 120_000 / clock
            print(f"| {n:,} | {hidden} | {size:,} | {cpu:.1f} | {clock:.1f} | {steps:,.0f} |")


if __name__ == "__main__":
    main()
