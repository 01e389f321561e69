"""One `sghmc` step of all chains, side by side with `posteriors` under vmap, in CPU time.

    python benchmarks/sampling.py

The head is 320-128-10, with two teachers, 2,000 examples, batches of 64 and 8 chains, on one
thread. Rounds of both alternate in one run, and the figure that counts is the median of their
ratios: machines are noisy. Below it the script says what bounds a step: random numbers and matrix
products alone.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

warnings.filterwarnings("ignore", category=FutureWarning)

import posteriors  # noqa: E402  (its import warns)

from mtbkd.inference import sghmc  # noqa: E402
from mtbkd.inference.chains import chain_generators, fill_normal  # noqa: E402
from mtbkd.prior.settings import Prior  # noqa: E402
from mtbkd.student.log_posterior import log_posterior, posterior_gradient  # noqa: E402
from mtbkd.student.student import make_student  # noqa: E402
from mtbkd.training import Minibatches, TrainingSet  # noqa: E402
from mtbkd.types import Batch  # noqa: E402

INPUTS, HIDDEN, CLASSES, TEACHERS, EXAMPLES, BATCH, CHAINS = 320, 128, 10, 2, 2000, 64, 8
ROUNDS, STEPS = 15, 40
AXES = Batch(0, 0, 0, None)  # of chains in each part of a batch


def problem() -> TrainingSet:
    generator = torch.Generator().manual_seed(0)
    return TrainingSet(
        torch.randn(EXAMPLES, INPUTS, generator=generator),
        torch.randint(CLASSES, (EXAMPLES,), generator=generator),
        torch.randn(TEACHERS, EXAMPLES, CLASSES, generator=generator).log_softmax(-1),
        torch.full((TEACHERS, EXAMPLES), 1 / TEACHERS).log(),
    )


def ours(data: TrainingSet) -> Callable[[], Any]:
    student = make_student(network())
    generators = chain_generators(0, 0, CHAINS, torch.device("cpu"))
    batches = Minibatches(data, Prior(), generators)
    engine = sghmc.build(
        posterior_gradient(student, EXAMPLES), temperature=1 / EXAMPLES, step_size=1e-3
    )
    state = engine.init(student.initial_position(generators), generators)
    batch = batches(BATCH)

    def step() -> None:
        nonlocal state
        state, _ = engine.update(state, batch, generators)

    return step


def theirs(data: TrainingSet) -> Callable[[], Any]:
    """The same log posterior, in the same standardised parameters."""
    student = make_student(network())
    generators = chain_generators(0, 0, CHAINS, torch.device("cpu"))
    density = log_posterior(student, EXAMPLES)
    sampler = posteriors.sgmcmc.sghmc.build(
        lambda position, batch: (density(position, batch), torch.tensor([])),
        lr=1e-4,
        alpha=1.0,
        temperature=1 / EXAMPLES,
    )
    state = torch.vmap(sampler.init, randomness="different")(student.initial_position(generators))
    update = torch.vmap(sampler.update, in_dims=(0, AXES), randomness="different")
    batch = Minibatches(data, Prior(), generators)(BATCH)

    def step() -> None:
        nonlocal state
        state, _ = update(state, batch)

    return step


def theirs_by_name(data: TrainingSet) -> Callable[[], Any]:
    """As its documentation writes it: a dictionary of parameters and `functional_call`."""
    net = network()
    data_terms = Minibatches(data, Prior(), chain_generators(0, 0, CHAINS, torch.device("cpu")))
    batch = data_terms(BATCH)

    def density(parameters: dict[str, torch.Tensor], b: Any) -> tuple[torch.Tensor, torch.Tensor]:
        log_q = torch.log_softmax(torch.func.functional_call(net, parameters, (b.inputs,)), -1)
        likelihood = log_q.gather(-1, b.labels[:, None]).mean()
        parts = (b.terms.pseudo_counts * log_q).sum(-1) + b.terms.log_offsets
        prior = sum(-0.5 * (p**2).sum() for p in parameters.values()) / EXAMPLES
        return likelihood + torch.logsumexp(parts, 0).mean() + prior, torch.tensor([])

    sampler = posteriors.sgmcmc.sghmc.build(density, lr=1e-4, alpha=1.0, temperature=1 / EXAMPLES)
    start = {n: p.detach().expand(CHAINS, *p.shape).clone() for n, p in net.named_parameters()}
    state = torch.vmap(sampler.init, randomness="different")(start)
    update = torch.vmap(sampler.update, in_dims=(0, AXES), randomness="different")

    def step() -> None:
        nonlocal state
        state, _ = update(state, batch)

    return step


def random_numbers() -> Callable[[], Any]:
    """The normals of one step."""
    generators = chain_generators(0, 0, CHAINS, torch.device("cpu"))
    noise = torch.empty(CHAINS, (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * CLASSES)
    return lambda: fill_normal(noise, generators)


def matrix_products() -> Callable[[], Any]:
    """The products of one forward and backward pass, over all chains."""
    x, h, g = (torch.randn(CHAINS, BATCH, n) for n in (INPUTS, HIDDEN, CLASSES))
    w, v = torch.randn(CHAINS, HIDDEN, INPUTS), torch.randn(CHAINS, CLASSES, HIDDEN)

    def products() -> None:
        for a, b in ((x, w.mT), (h, v.mT), (g, v), (g.mT, h), (h.mT, x)):
            torch.bmm(a, b)

    return products


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    )


def milliseconds(step: Callable[[], Any]) -> float:
    start = time.process_time()
    for _ in range(STEPS):
        step()
    return 1000 * (time.process_time() - start) / STEPS


def main() -> None:
    torch.set_num_threads(1)
    data = problem()
    steps = {
        "mtbkd": ours(data),
        "posteriors, flat": theirs(data),
        "posteriors, by name": theirs_by_name(data),
        "random numbers": random_numbers(),
        "matrix products": matrix_products(),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        milliseconds(step)
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(milliseconds(step))
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, value in middle.items():
        print(f"{name:22}{value:8.2f} ms of CPU time per step of {CHAINS} chains")
    for rival in ("posteriors, flat", "posteriors, by name"):
        ratios = [a / b for a, b in zip(times["mtbkd"], times[rival], strict=True)]
        quarters = statistics.quantiles(ratios, n=4)
        spread = f"quartiles {quarters[0]:.2f}-{quarters[2]:.2f}"
        print(f"ratio to {rival}: {quarters[1]:.2f} ({spread})")
    bound = middle["random numbers"] + middle["matrix products"]
    share = bound / middle["mtbkd"]
    print(f"random numbers and matrix products alone: {bound:.2f} ms, {share:.0%} of a step")


if __name__ == "__main__":
    main()
