"""What many rows and many classes cost: memory, time per row, size of the store.

    python benchmarks/scale.py rows      # 1,000,000 rows x 4 teachers x 10 classes against 50,000
    python benchmarks/scale.py classes   # 50,000 rows x 10,000 classes, the top 32 kept

Every measurement runs in a process of its own, on one thread, after another process wrote its data.
Peak resident memory is that of the whole process by ``getrusage``, pages of mapped files included.
This process imports nothing large: a child's peak begins at its parent's.

``rows`` runs `mtbkd.distill` with one epoch of MAP and the engine ``ensemble``, and times
the epoch together with what is prepared for it. ``classes`` times the parts of the prior on
the same log-probabilities, in rounds that visit every part, and prints medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

N_TEACHERS, N_CLASSES, N_INPUTS, N_LABELLED = 4, 10, 32, 2000
MANY, FEW, BATCH, CHAINS, HIDDEN = 1_000_000, 50_000, 256, 2, 64
TOP_ROWS, TOP_CLASSES, TOP, TOP_BATCH = 50_000, 10_000, 32, 64
KEPT, ROUNDS = (8, 32, 128), 101


def write_rows(folder: Path, n_rows: int, dtype: str) -> None:
    """Inputs, labels and a store of outputs, a block of rows at a time."""
    import numpy as np

    from mtbkd.outputs.aligned import make_table
    from mtbkd.outputs.store import align_to

    random = np.random.default_rng(0)
    inputs = np.lib.format.open_memmap(
        folder / "inputs.npy", mode="w+", dtype=np.float32, shape=(n_rows, N_INPUTS)
    )
    step = 50_000
    maps = random.normal(size=(N_TEACHERS, N_INPUTS, N_CLASSES)) / N_INPUTS**0.5
    logits = np.lib.format.open_memmap(
        folder / "logits.npy", mode="w+", dtype=np.float32, shape=(N_TEACHERS, n_rows, N_CLASSES)
    )
    for start in range(0, n_rows, step):
        rows = slice(start, start + step)
        inputs[rows] = random.normal(size=(len(inputs[rows]), N_INPUTS))
        logits[:, rows] = 2 * (inputs[rows] @ maps) + random.normal(
            size=(N_TEACHERS, len(inputs[rows]), N_CLASSES)
        )
    labels = np.full(n_rows, -1)
    labelled = random.choice(n_rows, N_LABELLED, replace=False)
    labels[labelled] = np.stack([logits[0, i] for i in labelled]).argmax(1)
    np.save(folder / "labels.npy", labels)
    ids = tuple(f"row-{i:07}" for i in range(n_rows))
    classes = tuple(f"class {c}" for c in range(N_CLASSES))
    tables = [
        make_table(f"teacher {k}", logits[k], kind="logits", ids=ids, classes=classes)
        for k in range(N_TEACHERS)
    ]
    align_to(folder / "store", tables, ids, classes, dtype="float16" if dtype == "half" else dtype)
    (folder / "logits.npy").unlink()


def measure_rows(folder: Path, out: bool) -> dict[str, float]:
    """One epoch on mapped data, through `distill`."""
    import numpy as np
    import torch

    from mtbkd.data import make_dataset
    from mtbkd.distillation.distill import distill
    from mtbkd.inference import modes as learning
    from mtbkd.inference.engines import SamplerSettings
    from mtbkd.inference.modes import MapSettings
    from mtbkd.outputs.store import load_outputs

    torch.set_num_threads(1)
    peaks = {"imports": peak()}
    begin = time.perf_counter()
    teachers = load_outputs(folder / "store")
    peaks["store"] = peak()
    data = make_dataset(
        np.load(folder / "inputs.npy", mmap_mode="r"),
        classes=teachers.classes,
        labels=np.load(folder / "labels.npy"),
        ids=teachers.ids,
    )
    peaks["data set"] = peak()
    epoch: list[float] = []
    find_modes = learning.find_modes

    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        found = find_modes(*arguments, **named)
        epoch.append(time.perf_counter() - start)
        return found

    learning.find_modes = timed

    def report(stage: str, done: int, total: int) -> None:
        peaks[f"{stage} {done}"] = peak()

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(N_INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, N_CLASSES)
    )
    loaded = time.perf_counter()
    distill(
        network,
        data,
        teachers,
        modes=MapSettings(epochs=1, batch_size=BATCH),
        sampler=SamplerSettings(engine="ensemble", draws=1),
        chains=CHAINS,
        out=folder / "run" if out else None,
        report=report,
    )
    return {
        "read": loaded - begin,
        "distill": time.perf_counter() - loaded,
        "epoch": epoch[0],
        "peak": peak(),
        "rows": len(data),
        **{f"peak after {name}": value for name, value in peaks.items()},
    }


def measure_top(n_classes: int) -> dict[str, list[float]]:
    """Milliseconds of each part of the prior for one batch, on the same log-probabilities."""
    import torch
    from torch import Tensor

    from mtbkd.observation import Categorical, Said, Top
    from mtbkd.observation.log_probs import log_softmax
    from mtbkd.observation.top import components, pulls, top_terms
    from mtbkd.prior.mixture import Strength
    from mtbkd.types import Batch

    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, TOP_BATCH, n_classes, generator=random)
    labels = torch.full((1, TOP_BATCH), -1)
    outputs = 2 * torch.randn(N_TEACHERS, TOP_BATCH, n_classes, generator=random)
    full = outputs.log_softmax(-1)
    weights = torch.full((N_TEACHERS, TOP_BATCH), 1 / N_TEACHERS).log()
    log_q = log_softmax(logits)
    likelihood = likelihood_alone(logits, labels)
    steps: dict[str, Callable[[], Any]] = {"likelihood": likelihood}
    for kept in KEPT:
        each, which = full.topk(kept, -1)
        rest = torch.log1p(-each.exp().sum(-1, keepdim=True)).clamp_min(-16)
        said = Said(torch.cat([each, rest], -1), weights, which.short(), None, None)
        terms = top_terms(said, 1.0, 1.0, 0.0, n_classes)
        batch = Batch(logits, labels, type(terms)(*(part[None] for part in terms)))
        observation = Top(n_classes)
        _, _, index, sparse = pulls(batch.terms, log_q)
        slopes = torch.zeros_like(log_q)

        def own(batch: Batch = batch, slopes: Tensor = slopes) -> None:
            _, _, index, sparse = pulls(batch.terms, log_q)
            slopes.scatter_add_(-1, index, sparse)

        parts = {
            "terms": lambda said=said: top_terms(said, 1.0, 1.0, 0.0, n_classes),
            "gather": lambda i=index: log_q.gather(-1, i),
            "components": lambda b=batch: components(b.terms, log_q),
            "pulls": lambda b=batch: pulls(b.terms, log_q),
            "sparse slopes": lambda s=slopes, i=index, p=sparse: s.scatter_add_(-1, i, p),
            "prior": own,
            "value and slope": lambda b=batch, o=observation: o.value_and_slope(
                logits, b, Strength()
            ),
        }
        steps |= {f"{name} {kept}": step for name, step in parts.items()}
    dense = Categorical()
    terms = dense.terms(Said(full, weights, None, None, None), 1.0, 1.0, 0.0)
    batch = Batch(logits, labels, type(terms)(*(part[None] for part in terms)))
    steps["dense terms"] = lambda: dense.terms(Said(full, weights, None, None, None), 1.0, 1.0, 0.0)
    steps["dense value and slope"] = lambda: dense.value_and_slope(logits, batch, Strength())
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            step()  # so that what came before does not matter
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def likelihood_alone(logits: Any, labels: Any) -> Callable[[], Any]:
    """What `value_and_slope` does for the labels, which needs the softmax over all classes."""
    from mtbkd.observation.log_probs import log_softmax

    def step() -> Any:
        log_q = log_softmax(logits)
        labelled = (labels >= 0).to(logits.dtype).unsqueeze(-1)
        index = labels.clamp_min(0).unsqueeze(-1)
        values = (log_q.gather(-1, index) * labelled).squeeze(-1)
        return values, log_q.exp().mul_(-labelled).scatter_add_(-1, index, labelled)

    return step


def write_top(folder: Path) -> None:
    """A store of one teacher that gives its most probable classes of very many."""
    import numpy as np

    from mtbkd.outputs.aligned import make_top_table
    from mtbkd.outputs.store import align_to

    random = np.random.default_rng(0)
    probs = -np.sort(-random.dirichlet([0.1] * TOP, TOP_ROWS), -1) * 0.9
    probs = np.maximum(probs, 1e-6)
    kept = (random.integers(TOP_CLASSES, size=(TOP_ROWS, 1)) + 7 * np.arange(TOP)) % TOP_CLASSES
    ids = tuple(f"row-{i:07}" for i in range(TOP_ROWS))
    classes = tuple(f"token {c}" for c in range(TOP_CLASSES))
    table = make_top_table(
        "teacher", probs, kept, 1 - probs.sum(1), kind="probs", ids=ids, classes=classes
    )
    for dtype in ("float32", "float16"):
        align_to(folder / dtype, [table], ids, classes, dtype=dtype)


def classes() -> None:
    with tempfile.TemporaryDirectory() as name:
        child("write-top", name)
        for dtype in ("float32", "float16"):
            sizes = [path.stat().st_size for path in (Path(name) / dtype).iterdir()]
            print(
                f"store of one teacher, {TOP_ROWS:,} rows x {TOP_CLASSES:,} classes, top {TOP}, "
                f"{dtype}: {sum(sizes) / 1e6:.2f} MB (at most 16)"
            )
    found = {n: child("measure-top", str(n)) for n in (1000, TOP_CLASSES)}
    middle = {n: {k: statistics.median(v) for k, v in times.items()} for n, times in found.items()}
    print(f"\nmilliseconds for {TOP_BATCH} rows x {N_TEACHERS} teachers, median of {ROUNDS} rounds")
    print(f"{'':24}" + "".join(f"{n:>9,} classes" for n in middle) + "    ratio")
    for name in middle[TOP_CLASSES]:
        few, many = middle[1000][name], middle[TOP_CLASSES][name]
        print(f"{name:24}{few:17.3f}{many:17.3f}{many / few:9.2f}")
    for n, times in found.items():
        alone = times["likelihood"]
        extra = {
            kept: statistics.median(
                a - b for a, b in zip(times[f"value and slope {kept}"], alone, strict=True)
            )
            for kept in KEPT
        }
        print(
            f"{n:,} classes, value and slope less the likelihood: "
            + ", ".join(f"{kept} kept {value:.3f} ms" for kept, value in extra.items())
        )


def peak() -> float:
    """Of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def child(*arguments: str) -> dict[str, Any]:
    """What this script prints when it is run with these arguments."""
    command = [sys.executable, __file__, *arguments]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    if arguments[0] == "measure-top":  # freed memory is kept, or its pages are what is timed
        quiet |= {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31)}
    ran = subprocess.run(command, env=quiet, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout or "{}")


def rows(many: int, few: int, repeats: int, out: bool, parts: bool) -> None:
    print(f"{'rows':>9} {'store':8} {'read s':>7} {'epoch s':>8} {'µs/row':>7} {'distill s':>9} "
          f"{'peak GB':>8}")  # fmt: skip
    for dtype in ("float32", "float16"):
        times: dict[int, list[float]] = {many: [], few: []}
        with tempfile.TemporaryDirectory() as name:
            for n in times:
                (Path(name) / str(n)).mkdir()
                child("write-rows", f"{name}/{n}", str(n), dtype)
            for repeat in range(repeats):
                for n in times:
                    run = child("measure-rows", f"{name}/{n}", *(["--out"] if out else []))
                    for path in (Path(name) / str(n) / "run").rglob("*"):
                        if path.is_file():
                            path.unlink()
                    times[n].append(run["epoch"] / n)
                    print(
                        f"{n:>9,} {dtype:8} {run['read']:7.1f} {run['epoch']:8.2f} "
                        f"{1e6 * run['epoch'] / n:7.2f} {run['distill']:9.2f} {run['peak']:8.3f}"
                    )
                    if parts and not repeat:
                        for what, value in run.items():
                            if what.startswith("peak after"):
                                print(f"{what:>40}: {value:.3f} GB")
        ratio = statistics.median(times[many]) / statistics.median(times[few])
        print(f"{dtype}: {ratio:.2f} times the time per row of {few:,} rows (at most 1.5)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("rows")
    command.add_argument("--many", type=int, default=MANY)
    command.add_argument("--few", type=int, default=FEW)
    command.add_argument("--repeats", type=int, default=3)
    command.add_argument("--out", action="store_true", help="write a run's folder too")
    command.add_argument("--parts", action="store_true", help="print the peak after each stage")
    command = commands.add_parser("write-rows")
    command.add_argument("folder", type=Path)
    command.add_argument("n_rows", type=int)
    command.add_argument("dtype")
    command = commands.add_parser("measure-rows")
    command.add_argument("folder", type=Path)
    command.add_argument("--out", action="store_true")
    commands.add_parser("classes")
    commands.add_parser("write-top").add_argument("folder", type=Path)
    commands.add_parser("measure-top").add_argument("n_classes", type=int)
    given = parser.parse_args()
    if given.command == "rows":
        rows(given.many, given.few, given.repeats, given.out, given.parts)
    elif given.command == "classes":
        classes()
    elif given.command == "write-top":
        write_top(given.folder)
    elif given.command == "measure-top":
        print(json.dumps(measure_top(given.n_classes)))
    elif given.command == "write-rows":
        write_rows(given.folder, given.n_rows, given.dtype)
    elif given.command == "measure-rows":
        print(json.dumps(measure_rows(given.folder, given.out)))


if __name__ == "__main__":
    main()
