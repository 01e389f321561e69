"""How a budget is shared out: a step is timed, and all that precedes sampling is made to fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from mtbkd.files import read_sealed, save_sealed
from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.inference.modes import MapSettings, find_modes
from mtbkd.inference.run import Target
from mtbkd.inference.settings import SamplerSettings
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.training import Minibatches
from mtbkd.types import InputError

TRIAL = SamplerSettings(engine="sghmc", burn_in=100, draws=20, thinning=10, batch_size=None)
"""How draws that judge a choice are made."""
TRIAL_CHAINS = 2
# of sampling's seconds: the modes, also where chains go one by one, and draws that judge choices
_MODES, _MODES_IN_TURN, _TRIALS = 0.03, 0.15, 0.25
_TRIED = 0.3  # what looks for modes of a stand-in, of which a third is spent
_BEFORE, _LEAST = 0.5, 0.25  # of them: what may precede sampling, and what sampling keeps
MOST_COMPARED, _FEWEST_COMPARED = 10_000, 500
_TIMED, _MOST_TIMED, _LONG_ENOUGH = 2, 50, 0.2
_TIMED_EXAMPLES, _TIMED_BATCHES, _FEWER = 10_000, 10, 10
_SHARES = "shares.json"
_FEWEST_DRAWS, _ANSWERS = 8, 0.1  # of a chain; of sampling's steps, how many a draw's answers cost


@dataclass(frozen=True)
class Shares:
    """What a budget lets each part of a distillation do.

    Attributes:
        epochs: Passes over the data that look for modes.
        tried_epochs: The same where priors are compared, which may be on a stand-in.
        compared: Examples on which priors are compared.
        steps: Steps of all chains over all examples that sampling has time for.
        per_step: Seconds of such a step.
        modes: Seconds that it takes to look for modes of all chains.
    """

    epochs: int
    tried_epochs: int
    compared: int
    steps: float
    per_step: float = 0.0
    modes: float = 0.0

    def draws(self, asked: int) -> int:
        """Draws of each chain, fewer where what they are asked later would cost much of the time.

        A draw answers on the examples of all splits several times, which takes a step or two.
        """
        return (
            asked
            if asked <= _FEWEST_DRAWS
            else int(min(asked, max(_FEWEST_DRAWS, _ANSWERS * self.steps)))
        )


def decided(out: Path, name: str, decide: Callable[[], Any]) -> Any:
    """What the clock decides, once: it is written down, and read back from then on.

    Args:
        out: A run directory.
        name: What it is called.
        decide: Asks the clock.
    """
    stored = _stored(out)
    if name not in stored:
        stored[name] = decide()
        save_sealed(out / _SHARES, stored)
    return stored[name]


def was_decided(out: Path, name: str, usual: Any) -> Any:
    """What was, or the usual where the clock was not asked."""
    return _stored(out).get(name, usual)


def read_shares(out: Path) -> Shares:
    """What `share_out` found for this run directory."""
    stored = _stored(out)
    return Shares(**{each.name: stored[each.name] for each in fields(Shares)})


def _stored(out: Path) -> dict[str, Any]:
    return read_sealed(out / _SHARES) if (out / _SHARES).exists() else {}


def share_out(
    target: Target,
    tried: Target,
    modes: MapSettings,
    n_chains: int,
    n_trials: int,
    budget: float,
    out: Path | None,
    clock: Callable[[], float] = perf_counter,
) -> Shares:
    """Time a step of the chains and one that looks for modes, and count how many there may be.

    The modes may take 3 % of sampling's seconds, or 15 % of a network whose chains go one by one,
    for which priors are tried on a stand-in: all else that looks for modes (trials, students
    that did not see some labels, baselines) takes a fixed multiple of that. The draws that judge
    priors may take a quarter. What the clock has decided is written down, so that a run that was
    killed goes on to the same bytes; without a folder to write to, the clock ends sampling alone.

    Args:
        target: What is sampled; under any prior, which costs the same.
        tried: The same, or a stand-in for which priors are compared.
        modes: How modes are found if there is time.
        n_chains: How many chains.
        n_trials: How many priors are compared.
        budget: Sampling's seconds.
        out: A run directory.
        clock: Seconds.
    """
    n = len(target.data)
    most = min(n, MOST_COMPARED)
    share = _MODES_IN_TURN if target.student.passage.in_turn else _MODES
    if out is None:
        epochs, every = modes.epochs, most if tried.student is target.student else MOST_COMPARED
        return Shares(epochs=epochs, tried_epochs=epochs, compared=every, steps=math.inf)
    if was_decided(out, "epochs", None) is not None:
        return read_shares(out)
    per_step = _seconds_of_a_step(target, n_chains, clock)
    epoch = math.ceil(n / modes.batch_size) * _seconds_of_an_update(target, modes, n_chains, clock)
    epochs = tried_epochs = max(1, min(modes.epochs, int(share * budget / epoch)))
    per_trial = per_step * TRIAL_CHAINS / n_chains
    if tried.student is not target.student:
        per_trial = _seconds_of_a_step(tried, TRIAL_CHAINS, clock)
    steps = max(n_trials, 1) * (TRIAL.burn_in + TRIAL.draws * TRIAL.thinning)
    compared = min(most, max(int(n * _TRIALS * budget / (steps * per_trial)), _FEWEST_COMPARED))
    if tried.student is not target.student:
        update = _seconds_of_an_update(tried, modes, TRIAL_CHAINS, clock)
        its_epoch = math.ceil(compared / modes.batch_size) * update
        most_seconds = _TRIED * budget / max(n_trials, 1)
        tried_epochs = max(1, min(modes.epochs, int(most_seconds / its_epoch)))
    found = Shares(
        epochs=epochs,
        tried_epochs=tried_epochs,
        compared=compared,
        steps=int(budget / per_step),
        per_step=per_step,
        modes=epochs * epoch,
    )
    save_sealed(out / _SHARES, _stored(out) | asdict(found))
    return found


def left_for_sampling(budget: float, seconds: float, out: Path) -> float:
    """Sampling's seconds, less what choices and modes have taken beyond half as much.

    Sampling keeps a quarter in any case.

    Args:
        budget: Sampling's seconds.
        seconds: What choices and modes took; a run that goes on reads back what it was at first.
        out: A run directory, with its shares.
    """
    late = min(max(0.0, seconds - _BEFORE * budget), (1 - _LEAST) * budget)
    return budget - decided(out, "late", lambda: late)


def within_share(modes: MapSettings, out: Path) -> MapSettings:
    """The same with as many epochs as a run with a budget has time for."""
    return replace(modes, epochs=was_decided(out, "epochs", modes.epochs))


def shortened(sampler: SamplerSettings, length: float) -> SamplerSettings:
    """The same with fewer steps, as students that did not see some labels take by the clock."""
    burn_in, thinning = (max(1, round(length * n)) for n in (sampler.burn_in, sampler.thinning))
    return replace(sampler, burn_in=burn_in, thinning=thinning)


def few_rows(n_examples: int, most: int, seed: int) -> torch.Tensor:
    """Examples on which priors are compared where there is a budget, by chance."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(n_examples, generator=generator)[:most].sort().values


def _seconds_of_a_step(target: Target, n_chains: int, clock: Callable[[], float]) -> float:
    """One gradient of all chains over all examples, from one over some where there are many."""
    student, data, prior = target
    n = len(data)
    generators = chain_generators(0, 0, n_chains, data.labels.device)
    gradient = in_parts(posterior_gradient(student, n, prior, data.observation), work=student.work)
    most = _TIMED_EXAMPLES // (_FEWER if student.passage.in_turn else 1)
    batch = Minibatches(data, prior, generators)(min(n, most))
    positions = student.initial_position(generators)
    return _seconds(lambda: gradient(positions, batch), clock) * max(1.0, n / most)


def _seconds_of_an_update(
    target: Target, modes: MapSettings, n_chains: int, clock: Callable[[], float]
) -> float:
    """One update of the search for modes, for all chains."""
    student, data, prior = target
    n_batches = max(1, _TIMED_BATCHES // (_FEWER if student.passage.in_turn else 1))
    some = data.subset(torch.arange(min(len(data), n_batches * modes.batch_size)))
    once, n_updates = replace(modes, epochs=1), math.ceil(len(some) / modes.batch_size)

    def search() -> None:
        try:
            find_modes(student, some, prior, once, n_chains=n_chains, seed=0)
        except InputError:
            pass  # that it diverges is told when it is meant

    return _seconds(search, clock) / n_updates


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of a call, the mean of a few; what others do meanwhile counts, as it will later."""
    work()
    begun, calls = clock(), 0
    while calls < _TIMED or (clock() - begun < _LONG_ENOUGH and calls < _MOST_TIMED):
        work()
        calls += 1
    return max((clock() - begun) / calls, 1e-9)
