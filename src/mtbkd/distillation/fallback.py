"""Where chains cannot agree in time: modes with Laplace's spread, if labels prefer them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtbkd.distillation.rounds import PROBES, TOO_HOT, Round
from mtbkd.distillation.shares import TRIAL_CHAINS
from mtbkd.distillation.trials import Trials
from mtbkd.files import read_sealed, save_sealed
from mtbkd.inference.diagnostics import RHAT_LIMIT
from mtbkd.inference.modes import progress_of
from mtbkd.inference.run import Chains, Target, sample, sample_cautiously
from mtbkd.inference.samples import PosteriorSamples, draws_folder
from mtbkd.inference.settings import SamplerSettings
from mtbkd.observation import OUTCOMES
from mtbkd.predictive import draw_outputs
from mtbkd.student.student import Student
from mtbkd.types import Family, InputError

_FEWEST = 20  # labels that may decide
_LONGEST, _SHORTEST = 0.5, 0.05  # chains that only judge, in units of the last round
_RECORD = "engine.json"


@dataclass(frozen=True)
class EngineChoice:
    """Which draws answer where chains had not agreed when their time was over, and why.

    Attributes:
        laplace: Whether they are Laplace's, around the modes that the chains started from.
        rhat_95: R-hat of the chains' last round.
        heat: Temperature of its hottest chain, in units of the posterior's.
        gain: Mean log score of Laplace's draws less that of chains, in nats for each label.
        error: Its standard error, of the differences label by label.
        n_labels: Calibration labels that neither learned from.
        distance: Total variation between the two predictives, mean over unlabelled inputs.
    """

    laplace: bool
    rhat_95: float
    heat: float
    gain: float
    error: float
    n_labels: int
    distance: float

    @property
    def reason(self) -> str:
        """In a sentence or two."""
        taken = "answer in their place" if self.laplace else "are not taken in their place"
        return (
            f"Chains had not agreed when their time was over (R-hat {self.rhat_95:.2f}, the "
            f"hottest at {self.heat:.1f} times the posterior's temperature). Modes with Laplace's "
            f"spread {taken}: on {self.n_labels} labels that neither had learned from their log "
            f"score is {self.gain:+.4f} nats (standard error {self.error:.4f}) from the chains', "
            "and they are taken if they are better by more than that. The two answers are "
            f"{self.distance:.3f} apart (mean total variation)."
        )


def choose_engine(
    target: Target,
    trials: Trials,
    sampler: SamplerSettings,
    modes: Tensor,
    chains: Chains,
    rounds: tuple[Round, ...],
    budget: float = math.inf,
) -> tuple[Chains, EngineChoice | None]:
    """The chains, or modes with Laplace's spread where chains are apart or hot and score worse.

    R-hat does not say which is better: chains that disagree are often the better predictive still.
    So labels do, by a score of each that neither has learned from. Chains stay unless they lose by
    more than one standard error of the differences: what explores is preferred to an approximation
    whose distance from the posterior nothing tells, as a simpler model is in Breiman et al. 1984,
    section 3.4.3. Where the target has learned from the calibration labels, two chains that have
    not, half as long as the last round or shorter, are compared with Laplace's draws around their
    own modes.

    What was found is written down, and the chains' draws stay where they are: more time goes on
    with them.

    Args:
        target: What was sampled.
        trials: Those of the student itself, without the calibration labels.
        sampler: As it was asked for; an engine that was asked for by name stays.
        modes: Where the chains started, shape (chain, parameter).
        chains: Those of the last round.
        rounds: All of them; none without a budget.
        budget: Seconds of the rounds and of what is compared; nothing is compared that does not
            fit.

    Returns:
        What answers, and what was compared; None if nothing was.
    """
    out = trials.out
    if sampler.engine != "auto" or not rounds or not _apart(rounds[-1]):
        _keep(out, None, len(rounds))
        return chains, None
    folder = None if out is None else draws_folder(out / "samples", instead=True)
    choice, length = _read(out, len(rounds)), _LONGEST
    if target.data is not trials.training:
        length = min(length, _left(rounds, budget))
    judged = len(_labels(trials)) >= _FEWEST and length >= _SHORTEST
    if (choice is None and not judged) or (choice is not None and not choice.laplace):
        _keep(out, choice, len(rounds))
        return chains, choice
    spread = replace(sampler, engine="laplace")
    try:
        laplace = sample(*target, spread, modes, seed=trials.seed, folder=folder)
        if choice is None:
            choice = _compared(target, trials, spread, rounds[-1], (chains, laplace), length)
    except InputError:  # a curvature or a chain that is not finite
        _keep(out, None, len(rounds))
        return chains, None
    _keep(out, choice, len(rounds))
    if not choice.laplace:
        return chains, choice
    return laplace._replace(plan=laplace.plan._replace(reason=choice.reason)), choice


def total_variation(
    student: Student, samples: tuple[PosteriorSamples, PosteriorSamples], inputs: Tensor, of: Family
) -> float:
    """Total variation between two predictives, mean over inputs and columns.

    Of numbers, that of the events which `Outcome.cuts` of the first one's draws separate.
    """
    outcome = OUTCOMES[of]
    parts = (draw_outputs(student, each, inputs) for each in samples)
    every = [torch.cat([part.flatten(0, 1) for part in each], 1) for each in parts]
    cuts = outcome.cuts(every[0])
    one, other = (outcome.events(draws, cuts).mean(0) for draws in every)
    return float(0.5 * (one - other).abs().sum(-1).double().mean())


def _apart(last: Round) -> bool:
    """Whether chains are clearly apart, or stayed hot."""
    return float(last.rhat_95 or 1.0) > RHAT_LIMIT or max(last.heat or (1.0,)) > TOO_HOT


def _left(rounds: tuple[Round, ...], budget: float) -> float:
    """What is left of the budget, in units of two chains as long as the last round.

    These take about half of what all took.
    """
    left = budget - sum(each.seconds or 0.0 for each in rounds)
    return 2 * left / max(float(rounds[-1].seconds or 0.0), 1e-9)


def _labels(trials: Trials) -> Tensor:
    """Calibration labels, shape (label,); none without calibration examples."""
    held = trials.calibration
    return torch.empty(0) if held is None else held.labels[held.known]


def _compared(
    target: Target,
    trials: Trials,
    spread: SamplerSettings,
    last: Round,
    found: tuple[Chains, Chains],
    length: float,
) -> EngineChoice:
    """Chains and Laplace's draws by their log scores on labels that neither learned from."""
    chains, laplace = found
    judged = found
    if target.data is not trials.training:
        judged = _without_labels(target, trials, spread, last, chains.plan.engine, length)
    ours, theirs = (torch.cat(list(_scores(trials, each.samples))) for each in judged)
    gains = theirs - ours
    gain, error = float(gains.mean()), float(gains.std()) / math.sqrt(len(gains))
    inputs = target.data.features
    return EngineChoice(
        laplace=gain > error,
        rhat_95=float(last.rhat_95 or 1.0),
        heat=max(last.heat or (1.0,)),
        gain=gain,
        error=error,
        n_labels=len(gains),
        distance=total_variation(
            target.student,
            (chains.samples, laplace.samples),
            inputs[:: -(-len(inputs) // PROBES)],
            target.data.observation.family,
        ),
    )


def _without_labels(
    target: Target,
    trials: Trials,
    spread: SamplerSettings,
    last: Round,
    engine: str,
    length: float,
) -> tuple[Chains, Chains]:
    """Short chains that have not learned from the calibration labels, and Laplace's draws."""
    n = min(TRIAL_CHAINS, len(last.caution))
    name = "chains without calibration labels"
    modes = trials.find(target.prior, n, name.replace("chains", "modes").replace(" ", "-"))
    settings = replace(
        spread,
        engine=engine,  # type: ignore[arg-type]
        burn_in=math.ceil(length * last.burn_in),
        thinning=math.ceil(length * last.thinning),
        batch_size=last.batch_size,
    )
    own = Target(trials.student, trials.training, target.prior)
    drawn = sample_cautiously(
        own,
        settings,
        modes,
        modes.new_tensor(last.caution[:n]),
        seed=trials.seed,
        progress=progress_of(trials.report, name),
    )
    return drawn, sample(*own, spread, modes, seed=trials.seed)


def _scores(trials: Trials, samples: PosteriorSamples) -> Iterator[Tensor]:
    """Log score of each calibration label in nats under the mean predictive, by batches."""
    held, units, start = trials.calibration, trials.units, 0
    if held is None:
        return
    labels = held.labels[held.known]
    labels = labels if units is None else units.labels(labels)
    for outputs in draw_outputs(trials.student, samples, held.inputs[held.known]):
        draws = outputs.flatten(0, 1).double()
        own = labels[start : start + draws.shape[1]].to(draws.device)
        start += len(own)
        each = trials.training.observation.log_likelihood(draws, own.expand(len(draws), *own.shape))
        yield (torch.logsumexp(each, 0) - math.log(len(each))).cpu()


def _read(out: Path | None, n_rounds: int) -> EngineChoice | None:
    """What was found after as many rounds, if that was done."""
    if out is None or not (out / _RECORD).exists():
        return None
    stored = read_sealed(out / _RECORD)
    return EngineChoice(**stored["choice"]) if stored["rounds"] == n_rounds else None


def _keep(out: Path | None, choice: EngineChoice | None, n_rounds: int) -> None:
    """Write down what was found; answers on calibration labels are those of what answers."""
    if out is None:
        return
    path, laplace = out / _RECORD, choice is not None and choice.laplace
    before = path.exists() and bool(read_sealed(path)["choice"]["laplace"])
    if before != laplace:
        shutil.rmtree(out / "cross_fit", ignore_errors=True)
    if not laplace:
        shutil.rmtree(draws_folder(out / "samples", instead=True), ignore_errors=True)
    if choice is None:
        path.unlink(missing_ok=True)
    else:
        save_sealed(path, {"rounds": n_rounds, "choice": asdict(choice)})
