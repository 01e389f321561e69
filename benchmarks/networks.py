"""What a convolutional network costs that is sampled whole: memory, time of a step, prediction.

    python benchmarks/networks.py            # 50,000 pictures 3 x 32 x 32, 8 chains, 80,000 weights
    python benchmarks/networks.py --quick    # the same at sizes that say little

Everything runs on one thread. A step of SGHMC is timed beside bare forward and backward passes of
the same network on the same batch, chain by chain, in turns in one process, by the processor's
clock; what is printed is the median of the ratios. Then the same chains predict. Peak resident
memory is that of the whole process by ``getrusage``, the pictures and PyTorch itself included.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import time

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.data import make_dataset
from mtbkd.inference import sghmc
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.predictive import predict
from mtbkd.prior.settings import Prior
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.pixels import pixels_like
from mtbkd.student.student import Student, make_student
from mtbkd.training import Minibatches, training_set
from mtbkd.weights.rules import Weighting

N, CHAINS, BATCH, WIDTH, ROUNDS, ASKED, DRAWS = 50_000, 8, 256, 32, 9, 500, 200
QUICK = {"N": 500, "CHAINS": 2, "BATCH": 16, "WIDTH": 4, "ROUNDS": 3, "ASKED": 20, "DRAWS": 4}
CLASSES = tuple(map(str, range(10)))


def network(pictures: Tensor) -> nn.Module:
    return nn.Sequential(
        pixels_like(pictures),
        nn.Conv2d(3, WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * WIDTH, 3 * WIDTH, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3 * WIDTH, 10),
    )


def material() -> tuple[Student, Minibatches, Prior]:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (N, 3, 32, 32), dtype=np.uint8)
    data = make_dataset(pictures, classes=CLASSES, labels=random.integers(0, 10, N))
    values = torch.randn(3, N, 10, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    said = TeacherOutputs(
        names=("a", "b", "c"),
        values=values,
        mask=torch.ones(3, N, dtype=torch.bool),
        ids=data.ids,
        classes=CLASSES,
    )
    student = make_student(network(data.inputs), weight_scale=3.0, example=data.inputs[:2])
    training = training_set(student, data, said, Weighting("uniform"))
    generators = chain_generators(0, 1, CHAINS, torch.device("cpu"))
    return student, Minibatches(training, Prior(), generators), Prior()


def measure() -> dict[str, float]:
    torch.manual_seed(0)
    student, batches, prior = material()
    generators = chain_generators(0, 2, CHAINS, torch.device("cpu"))
    gradient = in_parts(posterior_gradient(student, N, prior))  # one thread, as the bare passes
    engine = sghmc.build(gradient, temperature=1 / N, step_size=1e-4)
    state = engine.init(student.initial_position(generators), generators)
    copies = [copy.deepcopy(student.head).requires_grad_() for _ in range(CHAINS)]
    seen = batches(BATCH).rows(slice(None)).inputs
    slopes = torch.randn(BATCH, 10)

    def step() -> None:
        nonlocal state
        state, _ = engine.update(state, batches(BATCH), generators)

    def bare() -> None:
        for chain, own in enumerate(copies):
            torch.autograd.grad(own(seen[chain]), list(own.parameters()), slopes)

    def timed(what) -> float:
        begun = time.process_time()
        what()
        return time.process_time() - begun

    step()
    bare()
    pairs = [(timed(step), timed(bare)) for _ in range(ROUNDS)]
    draws = state.position.repeat_interleave(DRAWS // CHAINS, 0).unflatten(0, (CHAINS, -1))
    samples = PosteriorSamples((student.natural(draws),), student.names, tuple(student.shapes))
    asked = torch.randint(0, 256, (ASKED, 3, 32, 32), dtype=torch.uint8)
    asking = timed(lambda: predict(student, samples, asked))
    return {
        "parameters": student.n_parameters,
        "seconds of a step": statistics.median(a for a, _ in pairs),
        "seconds of bare passes": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "predictions a second": ASKED / asking,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    if parser.parse_args().quick:
        globals().update(QUICK)
    torch.set_num_threads(1)
    for name, value in measure().items():
        print(f"{name:24} {value:,.3f}")


if __name__ == "__main__":
    main()
