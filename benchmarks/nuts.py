"""Effective samples per CPU second of `hmc` and `sghmc`, side by side with BlackJAX's NUTS.

    python benchmarks/nuts.py                  # about 15 minutes on one core
    python benchmarks/nuts.py --seconds 30     # shorter, noisier

All three explore the log posterior of the digits student (recipe `digits`) from the same modes, 8
chains each, in one process, in float32 and on one thread. The density is written anew in JAX and
compared with ours at random positions first. `hmc` and `sghmc` run with the recipe's burn-in and
adaptation and keep every 20th step; NUTS adapts its step size and diagonal mass by BlackJAX's
`window_adaptation`, and its chains run one after the other or under `vmap`, whichever makes
gradients cheaper. Half of NUTS's draws are made before ours and half after. Time is CPU time;
compilation is left out. The effective sample size (Vehtari et al. 2021, doi:10.1214/20-BA1221) is
that of the log-probabilities of 100 test images.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 "
    + os.environ.get("XLA_FLAGS", "")
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse  # noqa: E402  (XLA reads its flags on import)
import math  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

import blackjax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from arviz_stats.base import array_stats  # noqa: E402
from jax.scipy.special import gammaln, logsumexp  # noqa: E402
from torch import Tensor  # noqa: E402

from mtbkd.app.config.run import RunConfig, build_config  # noqa: E402
from mtbkd.app.recipes import digits  # noqa: E402
from mtbkd.distillation.choose import choose_weighting
from mtbkd.inference.batches import Minibatches
from mtbkd.inference.chains import chain_generators  # noqa: E402
from mtbkd.inference.engines import make_plan  # noqa: E402
from mtbkd.inference.modes import find_modes
from mtbkd.inference.run import sample  # noqa: E402
from mtbkd.inference.step_size import largest_curvature, start_direction  # noqa: E402
from mtbkd.prior.settings import Prior
from mtbkd.student.log_posterior import posterior_gradient  # noqa: E402
from mtbkd.student.student import Student, make_student  # noqa: E402
from mtbkd.training import (
    TrainingSet,  # noqa: E402
    training_set,  # noqa: E402
)

CHAINS, THINNING, IMAGES, CHUNK = 8, 20, 100, 5


class Problem(NamedTuple):
    """The digits student's posterior, and where its chains start."""

    config: RunConfig
    student: Student
    data: TrainingSet
    prior: Prior
    modes: Tensor
    images: Tensor


class Run(NamedTuple):
    """What one method did: draws in standardised units (chain, draw, parameter)."""

    draws: Tensor
    warm_up: float
    seconds: float
    gradients: int
    step_size: float
    acceptance: float


def problem(seed: int) -> Problem:
    recipe = digits.RECIPE
    config = build_config(recipe.defaults, [f"seed={seed}"])
    task = recipe.load(config, Path("."))
    teachers, _ = digits.teach(config, task)
    module = recipe.network(config, task.train.inputs, len(task.train.classes))
    student = make_student(
        module, weight_scale=config.student.weight_scale, example=task.train.inputs[:2]
    )
    rule = config.prior.weights
    weighting = choose_weighting(rule, task.train, teachers, task.calibration, None)
    data = training_set(student, task.train, teachers, weighting)
    prior = config.prior.prior({})
    modes = find_modes(student, data, prior, config.map, n_chains=CHAINS, seed=seed)
    return Problem(config, student, data, prior, modes, task.test.inputs[:IMAGES])


def jax_density(p: Problem) -> Callable[[jax.Array], jax.Array]:
    """The log posterior of one standardised position, summed over examples, from its formula."""
    data, prior, hidden = p.data, p.prior, p.config.student.hidden[0]
    x, y = jnp.asarray(data.features.numpy()), jnp.asarray(data.labels.numpy())
    labelled, chosen = (y >= 0).astype(jnp.float32), jnp.maximum(y, 0)
    softening = jnp.full(len(data.values), prior.softening)
    if data.temperature is not None:
        softening = softening * jnp.asarray(data.temperature.numpy())
    probs = jax.nn.softmax(jnp.asarray(data.values.numpy()) / softening[:, None, None])
    counts = prior.concentration * probs
    log_weights = jnp.asarray(data.log_weights.numpy())
    if data.nobody is not None:  # a flat component, weighted as nobody is trusted
        counts = jnp.concatenate([counts, jnp.zeros_like(counts[:1])])
        log_weights = jnp.concatenate([log_weights, jnp.asarray(data.nobody.numpy())[None]])
    log_beta = gammaln(1 + counts).sum(-1) - gammaln((1 + counts).sum(-1))
    offsets = log_weights - log_beta
    n_pixels, n_classes = x.shape[1], counts.shape[-1]
    scale = p.config.student.weight_scale
    sizes = np.cumsum([hidden * n_pixels, hidden, n_classes * hidden])

    def density(z: jax.Array) -> jax.Array:
        w, b, v, c = jnp.split(z, sizes)
        first = scale / math.sqrt(n_pixels)
        h = jax.nn.relu(x @ (first * w.reshape(hidden, n_pixels)).T + first * b)
        second = scale / math.sqrt(hidden)
        log_q = jax.nn.log_softmax(h @ (second * v.reshape(n_classes, hidden)).T + second * c)
        likelihood = (labelled * jnp.take_along_axis(log_q, chosen[:, None], 1)[:, 0]).sum()
        parts = jnp.einsum("knc,nc->kn", counts, log_q) + offsets
        return likelihood + prior.strength.power * logsumexp(parts, 0).sum() - 0.5 * z @ z

    return density


def check_same(p: Problem, density: Callable[[jax.Array], jax.Array]) -> None:
    """Both densities and their gradients at random positions."""
    generators = chain_generators(1, 9, CHAINS, torch.device("cpu"))
    n = len(p.data.labels)
    noise = torch.stack([torch.randn(p.modes.shape[1], generator=g) for g in generators])
    position = p.modes + 0.5 * noise
    values, grads = posterior_gradient(p.student, n, p.prior.strength)(
        position, Minibatches(p.data, p.prior, generators)(n)
    )
    theirs, slopes = jax.vmap(jax.value_and_grad(density))(jnp.asarray(position.numpy()))
    gap = np.abs(n * values.numpy() - np.asarray(theirs)) / np.abs(theirs)
    slope_gap = np.abs(n * grads.numpy() - np.asarray(slopes)).max() / np.abs(slopes).max()
    print(f"densities differ by {gap.max():.1e}, gradients by {slope_gap:.1e}, relatively")
    if max(gap.max(), slope_gap) > 1e-4:
        raise SystemExit("the two densities are not the same")


class Nuts:
    """BlackJAX's NUTS on all chains, compiled beforehand."""

    def __init__(self, density: Callable[[jax.Array], jax.Array], modes: Tensor, n_warm_up: int):
        self._modes, self._n_warm_up = jnp.asarray(modes.numpy()), n_warm_up
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            density,
            adaptation_info_fn=lambda state, info, _: info.num_integration_steps,
        )
        kernel = blackjax.nuts.build_kernel()

        def warm_up(key: jax.Array, z: jax.Array) -> Any:
            return adaptation.run(key, z, num_steps=n_warm_up)

        def draw(key: jax.Array, state: Any, parameters: Any) -> Any:
            def one(state: Any, key: jax.Array) -> Any:
                state, info = kernel(key, state, density, **parameters)
                told = info.num_integration_steps, info.acceptance_rate, info.is_divergent
                return state, (state.position, *told)

            return jax.lax.scan(one, state, jax.random.split(key, CHUNK))

        self._side_by_side = cheaper_side_by_side(density, self._modes)
        keys = jax.random.split(jax.random.key(0), CHAINS)
        if self._side_by_side:
            self._warm_up = jax.jit(jax.vmap(warm_up)).lower(keys, self._modes).compile()
            shape = jax.eval_shape(jax.vmap(warm_up), keys, self._modes)[0]
            self._draw = jax.jit(jax.vmap(draw)).lower(keys, *shape).compile()
        else:
            self._warm_up = jax.jit(warm_up).lower(keys[0], self._modes[0]).compile()
            shape = jax.eval_shape(warm_up, keys[0], self._modes[0])[0]
            self._draw = jax.jit(draw).lower(keys[0], *shape).compile()

    def _each(self, function: Callable[..., Any], *rows: Any) -> Any:
        """Over all chains, as compiled."""
        if self._side_by_side:
            return jax.block_until_ready(function(*rows))
        each = [jax.tree.map(lambda row, c=c: row[c], rows) for c in range(CHAINS)]
        parts = [function(*row) for row in each]
        return jax.block_until_ready(jax.tree.map(lambda *p: jnp.stack(p), *parts))

    def warm_up(self, seed: int) -> tuple[float, int]:
        """CPU seconds and gradients."""
        start = time.process_time()
        keys = jax.random.split(jax.random.key(seed), CHAINS)
        (self._state, self._parameters), n_steps = self._each(self._warm_up, keys, self._modes)
        self._key = jax.random.key(seed + 1)
        self.step_size = float(self._parameters["step_size"].mean())
        return time.process_time() - start, int(n_steps.sum())

    def draws(self, seconds: float) -> tuple[Tensor, float, int, float]:
        """Draws for so long: (chain, draw, parameter), seconds, gradients, acceptance."""
        start, chunks, gradients, acceptance = time.process_time(), [], 0, []
        while time.process_time() - start < seconds:
            self._key, key = jax.random.split(self._key)
            keys = jax.random.split(key, CHAINS)
            self._state, told = self._each(self._draw, keys, self._state, self._parameters)
            chunks.append(np.asarray(told[0]))
            gradients += int(told[1].sum())
            acceptance.append(float(told[2].mean()))
        spent = time.process_time() - start
        draws = torch.from_numpy(np.concatenate(chunks, axis=1))
        return draws, spent, gradients, float(np.mean(acceptance))


def cheaper_side_by_side(density: Callable[[jax.Array], jax.Array], modes: jax.Array) -> bool:
    """Whether gradients of all chains at once cost less than one chain's times their number."""
    one, every = (
        jax.jit(f) for f in (jax.value_and_grad(density), jax.vmap(jax.value_and_grad(density)))
    )
    single = cpu_of(lambda: jax.block_until_ready(one(modes[0])))
    together = cpu_of(lambda: jax.block_until_ready(every(modes))) / CHAINS
    print(f"JAX: {1e3 * single:.2f} ms per gradient alone, {1e3 * together:.2f} ms side by side")
    return together < single


def cpu_of(call: Callable[[], Any], n: int = 40) -> float:
    """CPU seconds of one call."""
    call()
    start = time.process_time()
    for _ in range(n):
        call()
    return (time.process_time() - start) / n


def ours(p: Problem, engine: Any, seconds: float, seed: int) -> Run:
    """`hmc` or `sghmc` with the recipe's settings, for about so long after the burn-in."""
    settings = replace(p.config.sampler, engine=engine, thinning=THINNING)
    marks: list[float] = []

    def go(draws: int) -> Any:
        marks.clear()

        def progress(done: int, total: int) -> None:
            if done >= settings.burn_in and not marks:
                marks.append(time.process_time())

        asked = replace(settings, draws=draws)
        return sample(p.student, p.data, p.prior, asked, p.modes, seed=seed, progress=progress)

    n = len(p.data.labels)
    gradient = posterior_gradient(p.student, n, p.prior.strength)
    generators = chain_generators(seed, 8, CHAINS, torch.device("cpu"))
    batch = Minibatches(p.data, p.prior, generators)(n)
    cost = cpu_of(lambda: gradient(p.modes, batch))
    print(f"{engine}: {1e3 * cost / CHAINS:.2f} ms per gradient and chain")
    start = time.process_time()
    chains = go(max(10, round(seconds / (1.3 * cost * THINNING))))
    end = time.process_time()
    draws = p.student.standardised(torch.cat(chains.samples.segments, 1))
    n_updates = draws.shape[1] * THINNING
    told = chains.statistics
    return Run(
        draws,
        marks[0] - start,
        end - marks[0],
        CHAINS * n_updates,
        float(told["step_size"].mean()),
        float(told["acceptance"].mean()) if "acceptance" in told else math.nan,
    )


def judge(p: Problem, draws: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Effective sample sizes and R-hat of the test log-probabilities, shape (function,)."""
    forward = torch.vmap(torch.vmap(p.student.logits, (0, None)), (0, None))
    features = p.student.features(p.images)
    parts = [forward(part, features).log_softmax(-1).flatten(2) for part in draws.split(20, 1)]
    functions = torch.cat(parts, 1).double().numpy()
    size = array_stats.ess(functions, chain_axis=0, draw_axis=1)
    return size, array_stats.rhat(functions, chain_axis=0, draw_axis=1)


def auto(p: Problem) -> str:
    """What ``engine=auto`` says of this run."""
    n, generators = len(p.data.labels), chain_generators(0, 8, CHAINS, torch.device("cpu"))
    gradient = posterior_gradient(p.student, n, p.prior.strength)
    batch = Minibatches(p.data, p.prior, generators)(n)
    curvature, _ = largest_curvature(
        gradient, p.modes, batch, start_direction(p.modes, generators), 10
    )
    plan = make_plan(p.config.sampler, n, lambda: n * curvature)
    return f"{plan.engine}: {plan.reason}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of CPU after the warm-up")
    parser.add_argument("--warm-up", type=int, default=500, help="draws of NUTS that adapt")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    p = problem(asked.seed)
    print(f"{p.modes.shape[1]} parameters, {len(p.data.labels)} examples; auto takes {auto(p)}")
    density = jax_density(p)
    check_same(p, density)
    nuts = Nuts(density, p.modes, asked.warm_up)
    warm_up, warm_gradients = nuts.warm_up(asked.seed)
    print(f"NUTS: warm-up {warm_up:.0f} s, {warm_gradients} gradients", flush=True)
    halves = [nuts.draws(asked.seconds / 2)]
    runs = {name: ours(p, name, asked.seconds, asked.seed) for name in ("hmc", "sghmc")}
    halves.append(nuts.draws(asked.seconds / 2))
    draws, seconds, gradients, acceptance = zip(*halves, strict=True)
    runs = {
        "NUTS": Run(
            torch.cat(draws, 1),
            warm_up,
            sum(seconds),
            sum(gradients),
            nuts.step_size,
            float(np.mean(acceptance)),
        ),
        **runs,
    }
    print(
        "\n| method | warm-up s | CPU s | gradients | draws | step | acceptance | ESS 5 % | median "
        "| R-hat 95 % | 99 % | ESS per CPU s | to NUTS | with warm-up | to NUTS |"
    )
    print("|---" * 15 + "|")
    base: list[float] = []
    for name, run in runs.items():
        size, rhat = judge(p, run.draws)
        low, middle = np.quantile(size, [0.05, 0.5])
        rates = [middle / run.seconds, middle / (run.seconds + run.warm_up)]
        base = base or rates
        cells = [
            name,
            f"{run.warm_up:.0f}",
            f"{run.seconds:.0f}",
            f"{run.gradients}",
            f"{CHAINS} x {run.draws.shape[1]}",
            f"{run.step_size:.4f}",
            f"{run.acceptance:.2f}",
            f"{low:.0f}",
            f"{middle:.0f}",
            *(f"{q:.3f}" for q in np.quantile(rhat, [0.95, 0.99])),
            f"{rates[0]:.2f}",
            f"{rates[0] / base[0]:.2f}",
            f"{rates[1]:.2f}",
            f"{rates[1] / base[1]:.2f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
