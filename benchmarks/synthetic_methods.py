"""The methods that `synthetic` compares: posteriors by `hmc`, ensembles, dropout.

Every tensor has a leading replication axis; its replications become chains of one run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.distillation.evidence import disagreement_evidence
from mtbkd.inference import hmc
from mtbkd.inference import map as map_engine
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.diagnostics import convergence
from mtbkd.prior.mixture import MixtureTerms, Prior, mixture_terms
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch, Gradient
from mtbkd.weights.rules import uniform_weights

LEVELS = (0.5, 0.8, 0.95)
CHAINS, DRAWS, MAP_STEPS, RATE = 4, 100, 200, 0.05
LINEAR, NETWORK = (100, 4), (600, 24)
"""Updates of burn-in and updates for each draw, for students without and with a hidden layer."""
STEP, DIFFERENCE, FLATTEST, SPREAD = 0.5, 0.01, 0.5, 0.3
MEMBERS, MASKS, DROPOUT = 10, 100, 0.1
CPU = torch.device("cpu")


class Data(NamedTuple):
    """All replications, stacked: a leading replication axis on every tensor."""

    features: Tensor
    labels: Tensor
    log_probs: Tensor
    log_weights: Tensor
    uniform: Tensor
    test: Tensor
    truth: Tensor
    mask: Tensor

    def training(self, r: int) -> TrainingSet:
        """One replication under the product's weights."""
        return TrainingSet(self.features[r], self.labels[r], self.log_probs[r], self.log_weights[r])


class Reference(nn.Module):
    """Gives the last class the logit 0.

    With a logit for each class one direction of the parameters changes no prediction, is as wide
    as the weight prior, and makes every trajectory many times longer.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Shape (example, class - 1) to (example, class)."""
        return nn.functional.pad(logits, (0, 1))


def batch_of(
    data: Data, log_probs: Tensor, log_weights: Tensor, concentration: float, copies: int
) -> Batch:
    """All replications, each for so many chains."""
    terms = [
        mixture_terms(p, w, concentration) for p, w in zip(log_probs, log_weights, strict=True)
    ]
    together = MixtureTerms(*(torch.stack(column) for column in zip(*terms, strict=True)))
    batch = Batch(data.features, data.labels, together)
    return batch.each(lambda part: part.repeat_interleave(copies, 0))


def find_modes(
    student: Student, batch: Batch, power: Tensor, seed: int, start: Tensor | None = None
) -> Tensor:
    generators = chain_generators(seed, 0, len(batch.labels), CPU)
    gradient = posterior_gradient(student, batch.labels.shape[1], Prior(power=power))
    engine = map_engine.build(gradient, learning_rate=RATE, n_steps=MAP_STEPS)
    state = engine.init(
        student.initial_position(generators) if start is None else start, generators
    )
    for _ in range(MAP_STEPS):
        state, _ = engine.update(state, batch, generators)
    return state.position


def sample(
    student: Student, batch: Batch, power: Tensor, modes: Tensor, seed: int
) -> tuple[Tensor, float]:
    """Draws by `hmc`, shape (chain, draw, parameter), and its mean acceptance.

    A chain of a linear student moves in coordinates in which the curvature at its mode is the
    identity, so that a trajectory takes three or four steps. Chains start from draws around their
    modes.
    """
    n = batch.labels.shape[1]
    generators = chain_generators(seed, 1, len(modes), CPU)
    gradient = posterior_gradient(student, n, Prior(power=power))
    linear = len(student.names) == 2
    burn_in, thinning = LINEAR if linear else NETWORK
    flat = SPREAD * torch.eye(modes.shape[1]).expand(len(modes), -1, -1)
    spread = spread_at(gradient, modes, batch, n) if linear else flat

    def natural(position: Tensor) -> Tensor:
        return modes + torch.einsum("cij,cj->ci", spread, position)

    def whitened(position: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        values, grads = gradient(natural(position), batch)
        return values, torch.einsum("cij,ci->cj", spread, grads)

    engine = hmc.build(whitened, temperature=1 / n, step_size=STEP, burn_in=burn_in)
    start = torch.stack([torch.randn(modes.shape[1], generator=g) for g in generators])
    state, kept, accepted, ended = engine.init(start, generators), [], 0.0, 0.0
    for step in range(burn_in + DRAWS * thinning):
        state, info = engine.update(state, batch, generators)
        if step >= burn_in:
            accepted += float(info["acceptance"].sum())
            ended += float(info["trajectories"].sum())
            if (step - burn_in + 1) % thinning == 0:
                kept.append(natural(state.position))
    return torch.stack(kept, 1), accepted / ended


def spread_at(gradient: Gradient, modes: Tensor, batch: Batch, n: int) -> Tensor:
    """Square root of the inverse curvature at the modes, shape (chain, parameter, parameter)."""
    columns = []
    for j in range(modes.shape[1]):
        ends = []
        for sign in (1, -1):
            moved = modes.clone()
            moved[:, j] += sign * DIFFERENCE
            ends.append(gradient(moved, batch)[1].clone())
        columns.append((ends[1] - ends[0]) * (n / (2 * DIFFERENCE)))
    curvature = torch.stack(columns, 2).double()
    values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
    return (vectors * values.clamp_min(FLATTEST).rsqrt().unsqueeze(1)).float()


def probs_of(student: Student, positions: Tensor, test: Tensor) -> Tensor:
    """(draw, parameter) at (example, input) to (draw, example, class)."""
    forward = torch.vmap(student.logits, in_dims=(0, None))
    return torch.softmax(forward(positions, test), -1)


class Answer(NamedTuple):
    """Of one method on one replication: mean and intervals, (example, class) each."""

    mean: Tensor
    lower: dict[float, Tensor]
    upper: dict[float, Tensor]


def summarise(probs: Tensor) -> Answer:
    ranked = probs.double()
    tails = {level: (1 - level) / 2 for level in LEVELS}
    return Answer(
        ranked.mean(0),
        {level: ranked.quantile(tail, 0) for level, tail in tails.items()},
        {level: ranked.quantile(1 - tail, 0) for level, tail in tails.items()},
    )


def bayes(
    student: Student,
    data: Data,
    log_probs: Tensor,
    log_weights: Tensor,
    power: Tensor,
    seed: int,
    concentration: float = 1.0,
) -> tuple[list[Answer], dict[str, float]]:
    """Chains around modes that were found at concentration 1 first, as the product warms it up."""
    powers = power.repeat_interleave(CHAINS)
    gentle = batch_of(data, log_probs, log_weights, 1.0, CHAINS)
    modes = find_modes(student, gentle, powers * concentration, seed)
    batch = gentle
    if concentration > 1:
        batch = batch_of(data, log_probs, log_weights, concentration, CHAINS)
        modes = find_modes(student, batch, powers, seed, modes)
    draws, acceptance = sample(student, batch, powers, modes, seed)
    draws = draws.unflatten(0, (-1, CHAINS))
    answers, rhat, ess = [], [], []
    for r, own in enumerate(draws):
        probs = probs_of(student, own.flatten(0, 1), data.test[r])
        answers.append(summarise(probs))
        if r < 20:
            functions = probs.unflatten(0, own.shape[:2]).flatten(2).double().numpy()
            for found, into in zip(convergence(functions, 1e-9), (rhat, ess), strict=True):
                into.append(found)
    quality = {
        "acceptance": acceptance,
        "rhat_95": float(np.quantile(np.concatenate(rhat), 0.95)),
        "ess_5": float(np.quantile(np.concatenate(ess), 0.05)),
    }
    return answers, quality


def ensemble(student: Student, data: Data, seed: int) -> list[Answer]:
    """Averaged KD: members differ by their start and by a bootstrap of the examples."""
    pool, silent = pooled(data)
    batch = batch_of(data, pool, silent, 1.0, MEMBERS)
    generators = chain_generators(seed, 5, len(batch.labels), CPU)
    n = batch.labels.shape[1]
    index = torch.stack([torch.randint(n, (n,), generator=g) for g in generators])
    every = torch.arange(len(index))[:, None]
    batch = Batch(
        batch.inputs[every, index],
        batch.labels[every, index],
        MixtureTerms(*(part[every, :, index].movedim(1, 2) for part in batch.terms)),
    )
    found = find_modes(student, batch, torch.ones(len(index)), seed).unflatten(0, (-1, MEMBERS))
    return [summarise(probs_of(student, own, data.test[r])) for r, own in enumerate(found)]


def dropout(student: Student, data: Data, seed: int) -> list[Answer]:
    """Averaged KD with dropout before the last layer, kept at prediction (MC dropout)."""
    pool, _ = pooled(data)
    targets = pool[:, 0].exp()
    known = (data.labels >= 0).float().unsqueeze(-1)
    one_hot = nn.functional.one_hot(data.labels.clamp_min(0), targets.shape[-1]).float()
    generator = torch.Generator().manual_seed(seed)
    n, replications = data.labels.shape[1], len(data.labels)
    generators = chain_generators(seed, 6, replications, CPU)
    position = student.initial_position(generators).requires_grad_()
    optimiser = torch.optim.Adam([position], lr=RATE)
    for _ in range(MAP_STEPS):
        optimiser.zero_grad()
        log_q = torch.log_softmax(dropped(student, position, data.features, generator), -1)
        loss = -((targets + known * one_hot) * log_q).sum(-1).mean(1)
        loss = loss + 0.5 * position.square().sum(1) / n
        loss.sum().backward()
        optimiser.step()
    with torch.no_grad():
        masked = [
            torch.softmax(dropped(student, position, data.test, generator), -1)
            for _ in range(MASKS)
        ]
    return [summarise(probs) for probs in torch.stack(masked, 1)]


def dropped(student: Student, position: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """Logits with dropout before the last layer: (replication, example, class)."""
    named = student.unflatten(student.natural(position))
    layers = list(student.head.named_children())
    last = max(i for i, (_, layer) in enumerate(layers) if isinstance(layer, nn.Linear))
    for i, (name, layer) in enumerate(layers):
        if isinstance(layer, nn.Linear):
            if i == last:
                keep = torch.rand(x.shape, generator=generator) >= DROPOUT
                x = x * keep / (1 - DROPOUT)
            x = x @ named[f"{name}.weight"].mT + named[f"{name}.bias"][:, None]
        else:
            x = layer(x)
    return x


def pooled(data: Data) -> tuple[Tensor, Tensor]:
    """The plain mean of the teachers that speak, as one teacher, and its log weights."""
    means, silent = [], []
    for told, mask in zip(data.uniform, data.mask, strict=True):
        weights = uniform_weights(mask)
        means.append(torch.logsumexp(weights[:, :, None] + told, 0).nan_to_num(neginf=-1.1))
        silent.append(torch.where(mask.any(0), 0.0, -torch.inf))
    return torch.stack(means)[:, None], torch.stack(silent)[:, None]


def estimated(student: Student, data: Data, seed: int) -> Tensor:
    """The evidence that the teachers' disagreement tells, for each replication."""
    batch = batch_of(data, data.log_probs, data.log_weights, 1.0, 1)
    modes = find_modes(student, batch, torch.ones(len(data.labels)), seed)
    found = [disagreement_evidence(student, mode, data.training(r)) for r, mode in enumerate(modes)]
    return torch.tensor(found)
