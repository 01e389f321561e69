"""How many labelled examples the teachers are worth together, and the power that says so.

The mixture prior counts each teacher as ``concentration * power`` pseudo-observations on each of
N examples, as if these were independent. They are not: what a teacher says anywhere rests on the
examples that it was trained on. At ``power = 1`` the same evidence is counted again and again,
and intervals for ``p(y | x)`` are too narrow. With ``power = evidence / (concentration * N)`` the
prior counts for as many observations as there were. docs/synthetic.md shows what this changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtbkd.observation import OUTCOMES
from mtbkd.observation.dirichlet import multinomial
from mtbkd.student.curvature import block, last_layer, logits_and_inputs
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import InputError

_RIDGE, _ROWS = 1e-6, 4096
_MOST = 100.0  # observations on each example; teachers that agree so far are copies
_NORMAL = 1.959964  # the 97.5 % quantile


def power_of(evidence: float, concentration: float, n_examples: int) -> float:
    """The power at which the mixture prior weighs as much as so many labelled examples.

    Args:
        evidence: Labelled examples that the teachers are worth together: those that they were
            trained on, each counted once and none that the student has too. It is meant for a
            student about as flexible as they are; for a more flexible one it is cautious.
        concentration: Pseudo-observations of a teacher on an example.
        n_examples: N, labelled or not.
    """
    return evidence / (concentration * n_examples)


def disagreement_evidence(student: Student, mode: Tensor, data: TrainingSet) -> float:
    """Estimate the evidence from how much the teachers disagree.

    At the mode, teacher k pulls the last layer by ``s_k = sum_i w_k (p_k - q) x_i``. If teachers
    err independently, the spread of these pulls tells the variance of the pooled estimate,
    ``inv(H) B inv(H)`` with ``H = sum_i (diag(q) - q q') x_i x_i'`` and ``B = K / (K - 1) sum_k
    (s_k - s)(s_k - s)'``. The posterior has the covariance ``inv(H) / c``, where c is the evidence
    for each example; they are as large if ``c = tr(inv(H) H) / tr(inv(H) B)``: the magnitude
    adjustment of a composite likelihood (Pauli, Racugno and Ventura 2011; Ribatet, Cooley and
    Davison 2012) with teachers as clusters. As the spread of few teachers is itself uncertain, c
    is divided by the squared ratio of the 97.5 % quantiles of the t distribution and the normal.

    What all teachers have in common, above all examples that they were all trained on, does not
    show in their disagreement: then the estimate is too large, and the number should be declared.
    Layers before the last are taken as they are at the mode. Teachers of one group, which share
    mistakes, are one cluster.

    Args:
        student: Its last layer must be linear.
        mode: A mode of its posterior, shape (parameter,).
        data: What it learns from, with two teachers or more.

    Raises:
        InputError: If there is one teacher, or they say the same, or the last layer is not linear.
    """
    from scipy.special import stdtrit  # slow to import, and needed here alone

    if not OUTCOMES[data.observation.family].exclusive:
        raise InputError(
            f"Expected classification for prior.evidence=disagreement, but got "
            f"{data.observation.family}. Declare the evidence as a number."
        )
    n_teachers = len(data.values) if data.groups is None else len(data.groups.unique())
    if n_teachers < 2:
        raise InputError(
            "Expected two teachers or more, of different groups, for "
            "prior.evidence=disagreement, but got one. Declare "
            "how many labelled examples it was trained on, for example prior.evidence=600."
        )
    hessian, pulls = _sums(student, mode, data)
    if data.groups is not None:  # teachers that share mistakes are one cluster
        place = data.groups.unique(return_inverse=True)[1].to(pulls.device)
        pulls = torch.zeros_like(pulls[:n_teachers]).index_add_(0, place, pulls)
    pulls = pulls - pulls.mean(0)
    ridge = _RIDGE * hessian.diagonal().mean()
    solved = hessian + ridge * torch.eye(len(hessian), dtype=torch.float64, device=hessian.device)
    factor = torch.linalg.cholesky(solved)
    n_directions = float(torch.cholesky_solve(hessian, factor).trace())
    variance = (pulls.T * torch.cholesky_solve(pulls.T, factor)).sum() * n_teachers
    share = n_directions / max(float(variance) / (n_teachers - 1), 1e-12)
    freedom = (n_teachers - 1) * n_directions
    caution = (float(stdtrit(freedom, 0.975)) / _NORMAL) ** 2
    if share > _MOST:
        raise InputError(
            "Expected teachers that disagree for prior.evidence=disagreement, but got teachers "
            "that say the same. Declare how many labelled examples they were trained on together, "
            "for example prior.evidence=600."
        )
    return share * len(data.labels) / caution


def _sums(student: Student, mode: Tensor, data: TrainingSet) -> tuple[Tensor, Tensor]:
    """H and the teachers' pulls over all examples: (direction, direction), (teacher, direction).

    Weights of the last layer come before its biases, which are counted even if it has none.
    """
    found = last_layer(student)
    if found is None:
        raise InputError(
            "Expected a student whose last layer is linear and sampled for "
            f"prior.evidence=disagreement, but got {type(student.head).__name__}. Declare the "
            "evidence as a number."
        )
    hessian: Tensor | float = 0.0
    pulls: Tensor | float = 0.0
    for start in range(0, len(data.labels), _ROWS):
        rows = slice(start, start + _ROWS)
        with torch.no_grad():
            logits, inputs = logits_and_inputs(student, found[0], mode, data.features[rows])
        x, q = inputs.double(), torch.softmax(logits.double(), -1)
        said = data.said(rows)
        log_probs = data.observation.complete(said, data.temperature)
        weights = said.log_weights[..., None].double().exp()
        gaps = weights * (log_probs.double().exp() - q)
        own = torch.cat([torch.einsum("kic,id->kcd", gaps, x).flatten(1), gaps.sum(1)], 1)
        hessian, pulls = hessian + block(x, multinomial(q), with_bias=True), pulls + own
    return torch.as_tensor(hessian), torch.as_tensor(pulls)
