"""How fast texts become answers, and in how much memory.

    python benchmarks/texts.py                     # a million short texts, streamed
    python benchmarks/texts.py --news              # those of AG News, over and over; MTBKD_DATA
    python benchmarks/texts.py --texts 100000 --threads 1

A student (128 numbers, 64 hidden units, 4 classes; 32 draws) is made of generated weights, since
what it costs does not depend on what it learned. Texts come in blocks and are not kept. Printed are
rows a second from text to mean probabilities, the part of that which n-grams take, and the largest
resident memory of the process.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterator
from itertools import chain, cycle, islice
from time import perf_counter, process_time

import numpy as np
import torch

from mtbkd.app.data import data_root
from mtbkd.app.recipes.base import mlp
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.inputs.texts.ngrams import fit_ngrams
from mtbkd.predictive import predict
from mtbkd.student.student import Student, make_student

DRAWS, HIDDEN, CLASSES, BLOCK = 32, 64, 4, 2**14
WORDS, VOCABULARY = 10, 30_000


def short_texts(n: int, seed: int = 0) -> Iterator[list[str]]:
    """Blocks of texts of ten words, which are as frequent as Zipf says."""
    chance = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = np.array(["".join(chance.choice(letters, 2 + chance.integers(8)))
                      for _ in range(VOCABULARY)])  # fmt: skip
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    frequency /= frequency.sum()
    for start in range(0, n, BLOCK):
        chosen = chance.choice(words, (min(BLOCK, n - start), WORDS), p=frequency)
        yield [" ".join(row) for row in chosen]


def news_texts(n: int) -> Iterator[list[str]]:
    """Blocks of AG News, about forty words each, again from the start when they end."""
    path = data_root() / "text" / "agnews_dev.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    texts = cycle([line.rpartition("\t")[0] for line in lines])
    for start in range(0, n, BLOCK):
        yield list(islice(texts, min(BLOCK, n - start)))


def generated(width: int) -> tuple[Student, PosteriorSamples]:
    generator = torch.Generator().manual_seed(0)
    student = make_student(mlp([width, HIDDEN, CLASSES]), example=torch.zeros(1, width))
    draws = torch.randn(4, DRAWS // 4, student.prior_mean.numel(), generator=generator)
    shapes = tuple(tuple(shape) for shape in student.shapes)
    return student, PosteriorSamples((0.1 * draws,), student.names, shapes)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--news", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    blocks = (news_texts if asked.news else short_texts)(asked.texts)
    start = perf_counter()
    first = next(blocks)
    made = fit_ngrams(first, seed=0)
    print(f"n-grams of {len(first):,} texts chosen in {perf_counter() - start:.1f} s", flush=True)
    student, samples = generated(made.axes.shape[1])
    print(f"{megabytes():,.0f} MB before the first prediction", flush=True)
    counting = predicting = 0.0
    spent = process_time()
    total, sums = 0, np.zeros(CLASSES)
    for texts in chain([first], blocks):
        start = perf_counter()
        features = made.features(texts)
        counted = perf_counter()
        sums += predict(student, samples, features).probs.sum(0)
        counting += counted - start
        predicting += perf_counter() - counted
        total += len(texts)
    whole, spent = counting + predicting, process_time() - spent
    print(
        f"{total:,} texts, {DRAWS} draws, {asked.threads} threads: {total / whole:,.0f} rows/s "
        f"(n-grams {counting / whole:.0%} of the time), {total / spent:,.0f} rows for each second "
        f"of a processor, texts made included; {megabytes():,.0f} MB at most"
    )


if __name__ == "__main__":
    main()
