"""Do intervals for p*(y | x) contain the truth as often as they say? Many data sets, many methods.

    python benchmarks/synthetic.py --out runs/synthetic
    python benchmarks/synthetic.py --figures docs/figures --out runs/synthetic

Replications run side by side along the chain axis, scenarios in processes. Results go to OUT, one
JSON file for each scenario, and are taken from there if they are complete; the second command
draws the figures of docs/synthetic.md from them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from synthetic_methods import (
    LEVELS,
    Answer,
    Data,
    Reference,
    bayes,
    dropout,
    ensemble,
    estimated,
)
from torch import Tensor, nn

from mtbkd.app.recipes.base import mlp
from mtbkd.app.recipes.synthetic import SCENARIOS, Scenario, make_world
from mtbkd.distillation.evidence import power_of
from mtbkd.observation.log_probs import tempered
from mtbkd.student.student import make_student
from mtbkd.types import InputError
from mtbkd.weights.rules import Weighting, uniform_weights
from mtbkd.weights.stacking import fit_stacked

WEIGHT_SCALE, TEST = 2.0, 60
WORST_RHAT, FEWEST = 1.1, 100
CONCENTRATED, CONCENTRATIONS = ("alike", "wrong", "specialists"), (5, 20, 100)
COMPARED = (
    "ours, declared evidence",
    "ours, estimated evidence",
    "ours, power 1",
    "single-teacher BKD",
    "averaged KD, MC dropout",
    "averaged KD, deep ensemble",
)
_MOST = 50.0  # of an estimated power: teachers that agree by chance are not certain

STUDENTS: dict[str, tuple[int, ...]] = {name: () for name in SCENARIOS} | {
    "wide": (8,),
}
"""Hidden widths of the student; ``wide`` is ``alike`` for a network."""


def scenario_of(name: str) -> Scenario:
    return SCENARIOS["alike" if name == "wide" else name]


def make_data(name: str, replications: int, seed: int) -> Data:
    """Draw the worlds and weigh their teachers as the product does."""
    rows = []
    for r in range(replications):
        world = make_world(scenario_of(name), seed * 100_003 + r, TEST)
        n, n_calibration, _ = world.sizes
        log_probs = torch.log_softmax(torch.from_numpy(world.told).clamp_min(1e-7).log(), -1)
        log_probs, mask = log_probs.float(), torch.from_numpy(world.mask)
        labels, inputs = torch.from_numpy(world.labels), torch.from_numpy(world.inputs).float()
        held = labels >= 0
        held[n + n_calibration :] = False
        if scenario_of(name).kind == "reused":
            held[:n] = False
        fit = fit_stacked(log_probs[:, held], mask[:, held], labels[held])
        weights = Weighting("stacked", fit).apply(log_probs[:, :n], mask[:, :n]).log_weights
        rows.append(
            Data(
                inputs[:n],
                labels[:n],
                tempered(log_probs[:, :n], fit.temperature),
                weights,
                log_probs[:, :n],
                inputs[n + n_calibration :],
                torch.from_numpy(world.truth[n + n_calibration :]),
                mask[:, :n],
            )
        )
    return Data(*(torch.stack(column) for column in zip(*rows, strict=True)))


def study(name: str, replications: int, seed: int, out: Path) -> Path:
    """All methods on one scenario; writes and returns its file."""
    path = out / f"{name}-{replications}-{seed}.json"
    if path.exists():
        return path
    torch.set_num_threads(1)
    start = perf_counter()
    scenario, data = scenario_of(name), make_data(name, replications, seed)
    n = data.labels.shape[1]
    width, hidden = data.features.shape[-1], STUDENTS[name]
    student = make_student(
        nn.Sequential(*mlp([width, *hidden, 2]), Reference()), weight_scale=WEIGHT_SCALE
    )
    probe = make_student(mlp([width, *hidden, 3]), weight_scale=WEIGHT_SCALE)
    ones = torch.ones(replications)
    declared = ones * power_of(scenario.evidence, 1.0, n)
    alone = data.uniform[:, :1], torch.where(data.mask[:, :1], 0.0, -torch.inf)

    def ours(power: Tensor, concentration: float = 1.0) -> Any:
        told = data.log_probs, data.log_weights
        return bayes(student, data, *told, power, seed, concentration)

    methods: dict[str, Callable[[], Any]] = {
        "ours, declared evidence": lambda: ours(declared),
        "ours, power 1": lambda: ours(ones),
        "single-teacher BKD": lambda: bayes(student, data, *alone, ones, seed),
        "averaged KD, MC dropout": lambda: (dropout(student, data, seed), {}),
        "averaged KD, deep ensemble": lambda: (ensemble(student, data, seed), {}),
    }
    if name in CONCENTRATED:
        methods["ours, concentration 20, power 1"] = lambda: ours(ones, 20.0)
        methods |= {
            f"ours, declared evidence, concentration {v}": partial(ours, declared / v, float(v))
            for v in CONCENTRATIONS
        }
    if scenario.kind == "reused":
        told = data.log_probs, data.log_weights
        unlabelled = data._replace(labels=torch.full_like(data.labels, -1))
        methods["ours, declared evidence, labels withheld"] = lambda: bayes(
            student, unlabelled, *told, declared, seed
        )
    extra: dict[str, Any] = {}
    try:
        evidence = estimated(probe, data, seed)
        extra["estimated_evidence"] = evidence.tolist()
        power = (evidence / n).float().clamp_max(_MOST)
        methods["ours, estimated evidence"] = lambda: ours(power)
    except InputError:
        pass
    if scenario.kind in ("wrong", "noise"):
        honest = data.mask.clone()
        honest[:, -1] = False
        weights = torch.stack([uniform_weights(mask) for mask in honest])
        methods["ours, without the odd teacher"] = lambda: bayes(
            student, data, data.uniform, weights, declared, seed
        )
    found = {}
    for method, run in methods.items():
        answers, quality = run()
        found[method] = quality | score(answers, data.truth)
    result = {
        "scenario": name,
        "summary": scenario.summary + (", MLP student" if STUDENTS[name] else ""),
        "true_evidence": scenario.evidence,
        "replications": replications,
        "seconds": perf_counter() - start,
        "methods": found,
        **extra,
    }
    out.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".partial")
    unfinished.write_text(json.dumps(result))
    unfinished.rename(path)
    return path


def score(answers: list[Answer], truth: Tensor) -> dict[str, Any]:
    """Coverage and width by replication, and what intervals would be at any inflation."""
    rows: dict[str, list[float]] = {"nll": [], "accuracy": []}
    logit_gaps, half_widths, centres = [], [], []
    for answer, p in zip(answers, truth, strict=True):
        rows["nll"].append(float(-(p * answer.mean.clamp_min(1e-12).log()).sum(1).mean()))
        top = answer.mean.argmax(1, keepdim=True)
        rows["accuracy"].append(float(p.gather(1, top).mean()))
        for level in LEVELS:
            low, high = answer.lower[level], answer.upper[level]
            inside = (low <= p) & (p <= high)
            rows.setdefault(f"coverage_{level}", []).append(float(inside.double().mean()))
            rows.setdefault(f"width_{level}", []).append(float((high - low).mean()))
        low, high = logit(answer.lower[0.95]), logit(answer.upper[0.95])
        centres.append((low + high) / 2)
        half_widths.append((high - low) / 2)
        logit_gaps.append((logit(p) - centres[-1]).abs())
    gap, half = torch.stack(logit_gaps), torch.stack(half_widths).clamp_min(1e-6)
    factor = float((gap / half).quantile(0.95)) if gap.numel() < 2**24 else math.nan
    centre = torch.stack(centres)
    width = torch.sigmoid(centre + factor * half) - torch.sigmoid(centre - factor * half)
    return {
        **rows,
        "inflation_to_95": factor,
        "width_inflated_to_95": float(width.mean()),
    }


def logit(p: Tensor) -> Tensor:
    return torch.logit(p.clamp(1e-6, 1 - 1e-6))


def mean_and_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def print_tables(results: list[dict[str, Any]]) -> None:
    """Markdown, one table for each scenario."""
    for result in results:
        truth = result["true_evidence"]
        print(f"\n### {result['scenario']}: {result['summary']}\n")
        print(f"True evidence {truth} labelled examples", end="")
        if "estimated_evidence" in result:
            quantiles = np.quantile(result["estimated_evidence"], [0.1, 0.5, 0.9]).round()
            print(
                f"; estimated {quantiles[1]:.0f} ({quantiles[0]:.0f} to {quantiles[2]:.0f})", end=""
            )
        print(f". {result['replications']} replications, {result['seconds']:.0f} s.\n")
        heads = ("50 %", "80 %", "95 %", "width", "width at 95 %", "NLL", "accuracy", "R-hat, ESS")
        print("| method | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
        for method, found in result["methods"].items():
            cells = [f"{mean_and_error(found[f'coverage_{lv}'])[0]:.3f}" for lv in LEVELS[:2]]
            cells.append("{:.3f} ± {:.3f}".format(*mean_and_error(found["coverage_0.95"])))
            cells.append(f"{mean_and_error(found['width_0.95'])[0]:.3f}")
            cells.append(f"{found['width_inflated_to_95']:.3f}")
            cells.append(f"{mean_and_error(found['nll'])[0]:.3f}")
            cells.append(f"{mean_and_error(found['accuracy'])[0]:.3f}")
            quality = ""
            if "rhat_95" in found:
                good = found["rhat_95"] <= WORST_RHAT and found["ess_5"] >= FEWEST
                quality = f"{found['rhat_95']:.2f}, {found['ess_5']:.0f}" + ("" if good else " !")
            print(f"| {method} | " + " | ".join([*cells, quality]) + " |")


def print_summary(results: list[dict[str, Any]]) -> None:
    """Markdown: coverage of 95 % intervals, and widths at equal coverage."""
    titles = "declared", "estimated", "power 1", "BKD", "MC dropout", "ensemble"
    for heading, cell in (
        ("coverage of 95 % intervals", lambda m: "{:.3f} ± {:.3f}".format(*mean_and_error(m[0]))),
        ("width at 95 % coverage", lambda m: f"{m[1]:.3f}"),
    ):
        print(f"\n| {heading} | " + " | ".join(titles) + " |")
        print("|---" * (len(titles) + 1) + "|")
        for result in results:
            found = [result["methods"].get(method) for method in COMPARED]
            pairs = [m and (m["coverage_0.95"], m["width_inflated_to_95"]) for m in found]
            cells = ["" if pair is None else cell(pair) for pair in pairs]
            print(f"| {result['scenario']} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", nargs="+", choices=list(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--replications", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic"))
    parser.add_argument("--figures", type=Path)
    asked = parser.parse_args()
    with ProcessPoolExecutor(asked.processes) as pool:
        futures = [
            pool.submit(study, name, asked.replications, asked.seed, asked.out)
            for name in asked.scenarios
        ]
        results = [json.loads(future.result().read_text()) for future in futures]
    print_tables(results)
    print_summary(results)
    if asked.figures is not None:
        from synthetic_figures import draw_all

        draw_all(results, asked.figures)


if __name__ == "__main__":
    main()
