"""Sets, flags and what they rest on, in operations that ONNX has; `find_causes` says the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtbkd.app.export.answers import Answers
from mtbkd.app.export.stack import Stack
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain import outside
from mtbkd.explain.causes import (
    ALIKE,
    AMBIGUOUS,
    DISPUTED,
    EVEN,
    FLAGS,
    KNOWN,
    MUCH_DISSENT,
    OUTSIDE,
    RARE,
    Background,
)
from mtbkd.student.curvature import last_layer
from mtbkd.student.student import Student
from mtbkd.weights.directions import COLUMNS, sketch

_SURE = 1e-9
_ROUNDING = 1e-9


class Flags(nn.Module):
    """Why an answer is uncertain, and what is still possible.

    Attributes:
        hidden: What the last layer reads under the draws that examples are compared by.
        parts: Held-out examples that are calibrated together, each with the number of its group.
        given: Whether groups were given, which new examples do not have.
    """

    def __init__(self, posterior: Posterior, background: Background, n_features: int) -> None:
        """Keep what new examples are compared with.

        Args:
            posterior: The student, behind its frozen part, with all of its draws.
            background: That of its run.
            n_features: Numbers that the student reads of an example.
        """
        super().__init__()
        self.hidden = _hidden(posterior)
        if n_features > COLUMNS:
            where, sign = sketch(n_features)
            self.register_buffer("where", where)
            self.register_buffer("sign", sign)
        reference = background.reference
        self._keep("inputs", reference.inputs)
        self._keep("seen", reference.hidden)
        self._keep("spread", reference.spread)
        for name in ("dissent", "reliable"):
            values = getattr(background, name)
            known = ~values.isnan()
            self._keep(name, values[known].float())
            self._keep(f"{name}_at", background.answers[known].float())
        for name in ("bounds", "thresholds", "odds"):
            self._keep(name, getattr(background, name).double())
        self.given = bool(background.groups.given)
        self.parts = tuple(_parts(background))
        for i, (_, scores) in enumerate(self.parts):
            self._keep(f"held_{i}", scores)
            for name, value in zip(("inverse", "steps"), _ranked(scores), strict=True):
                self._keep(f"{name}_{i}", value)

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(f"known_{name}", value.contiguous().clone())

    def known(self, name: str) -> Tensor:
        """What is kept under a name."""
        return getattr(self, f"known_{name}")

    def forward(self, features: Tensor, answers: Answers) -> dict[str, Tensor]:
        """What `Causes` holds, by name, beside the answers; each of shape (example, ...)."""
        scores, distances, nearest = self._scores(features, answers)
        probs = answers.get("probs")
        own = None if probs is None else probs.argmax(1)
        found = {"outside_scores": scores, "outside": self._outside(scores, own)}
        found |= {"nearest": nearest, "distances": distances}
        is_outside = found["outside"] <= RARE
        if probs is None:
            flag = torch.where(is_outside, FLAGS.index(OUTSIDE), -1)
            return found | {"flag": flag}
        several = len(self.known("thresholds")) > 0
        roots = (torch.cat([probs, 1 - probs], 1) if several else probs).sqrt().float()
        found["dissent"] = self._expected("dissent", roots)
        found["pool"] = self._expected("reliable", roots)
        if several:
            said = probs >= self.known("thresholds")
            right = torch.where(said, probs, 1 - probs).prod(1).clamp(_SURE, 1 - _SURE)
            odds = right.log() - (1 - right).log()
            found["reliable"] = torch.sigmoid(self.known("odds")[0] + self.known("odds")[1] * odds)
            found["set"] = 1 - probs <= self.known("bounds") + _ROUNDING
            found["labels"] = said
        else:
            found["reliable"] = probs.amax(1)
            found["set"] = _ahead(probs) <= self.known("bounds") + _ROUNDING
        cause = torch.where(found["pool"] >= EVEN, FLAGS.index(KNOWN), FLAGS.index(AMBIGUOUS))
        cause = torch.where(found["dissent"] >= MUCH_DISSENT, FLAGS.index(DISPUTED), cause)
        cause = torch.where(found["reliable"] >= EVEN, -1, cause)
        return found | {"flag": torch.where(is_outside, FLAGS.index(OUTSIDE), cause)}

    def _scores(self, features: Tensor, answers: Answers) -> tuple[Tensor, Tensor, Tensor]:
        """How far outside each example is, as `outside_scores`, (example, score), and what is near.

        The last are distances to the nearest training examples in what the last layer reads, and
        their positions, each (example, near).
        """
        flat = features.flatten(1).float()
        if flat.shape[1] > COLUMNS:
            room = flat.new_zeros(flat.shape[0], COLUMNS)
            flat = room.index_add(1, self.get_buffer("where"), flat * self.get_buffer("sign"))
        hidden = self.hidden(features).transpose(0, 1).flatten(1)
        scores, distances, which = [], flat, flat
        for i, (values, name) in enumerate(((flat, "inputs"), (hidden, "seen"))):
            others = self.known(name).float()
            distances, which = _nearest(values, others, min(outside.NEAREST, len(others)))
            spread = self.known("spread")[i][which].mean(1)
            scores.append((distances.mean(1) / spread).double())
        epistemic = answers["epistemic"]
        if "mean" in answers:
            doubt = 0.5 * (epistemic / answers["aleatoric"]).log1p().sum(1)
        else:
            doubt = epistemic if epistemic.dim() == 1 else epistemic.sum(1)
        return torch.stack([*scores, doubt], 1), distances, which

    def _outside(self, scores: Tensor, own: Tensor | None) -> Tensor:
        """As `mtbkd.explain.outside.outside_p`: (example,)."""
        each = [self._tail(scores, i) for i in range(len(self.parts))]
        if self.given:
            return torch.stack(each).amax(0)
        found = each[-1]
        for (group, _), p in zip(self.parts[:-1], each[:-1], strict=True):
            found = p if own is None else torch.where(own == group, p, found)
        return found

    def _tail(self, scores: Tensor, i: int) -> Tensor:
        """As `mtbkd.explain.outside.joint_tail` among the held-out examples of a part."""
        held, n = self.known(f"held_{i}"), len(self.known(f"held_{i}"))
        each = scores.unsqueeze(1)
        ranks = (held >= each).double().sum(1)
        own = (1 / (1 + ranks)).sum(1, keepdim=True)
        moved = ((each >= held).double() * self.known(f"steps_{i}")).sum(2)
        others = self.known(f"inverse_{i}") + moved
        return (1 + (others >= own - _ROUNDING).double().sum(1)) / (1 + n)

    def _expected(self, name: str, roots: Tensor) -> Tensor:
        """Mean of what is known on the training examples that are answered most alike."""
        values, like = self.known(name), self.known(f"{name}_at")
        if len(values) < ALIKE:
            return torch.full_like(roots[:, 0].double(), torch.nan)
        return values[_nearest(roots, like, ALIKE)[1]].mean(1).double()


def _hidden(posterior: Posterior) -> Stack:
    """What the last layer reads under a few draws, as `mtbkd.explain.outside.see` has it."""
    student: Student = posterior.student
    draws = student.unflatten(posterior.samples.segments[-1][: outside.DRAWS, -1].cpu())
    head, last = copy.deepcopy(student.head), last_layer(student)
    if last is None:
        return Stack(head, draws)
    place = last[1][0].rpartition(".")[0]
    owner, _, name = place.rpartition(".")
    if not place:
        return Stack(nn.Identity(), draws)
    head.get_submodule(owner)._modules[name] = nn.Identity()
    return Stack(head, draws)


def _parts(background: Background) -> list[tuple[int, Tensor]]:
    """Scores of the held-out examples that are calibrated together; the last is for all others."""
    members, scores = background.groups.members, background.held_out.scores.double()
    large = members[members >= 0].unique().tolist()
    parts = [(group, scores[members == group]) for group in large]
    if bool(background.groups.given) and parts and not bool((members < 0).any()):
        return parts
    return [*parts, (-1, scores)]


def _ranked(held: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic ranks of held-out examples among themselves, and what one before each changes."""
    at_least = torch.stack([(column >= column[:, None]).double().sum(1) for column in held.T], 1)
    inverse = 1 / at_least
    return inverse.sum(1), 1 / (at_least + 1) - inverse


def _nearest(values: Tensor, others: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Distances to the nearest of the others, nearest first, and which they are: (example, n)."""
    centre = others.mean(0)
    values, others = values - centre, others - centre
    square = values.square().sum(1, keepdim=True) + others.square().sum(1) - 2 * values @ others.T
    found = square.clamp_min(0).topk(n, 1, largest=False)
    return found.values.sqrt(), found.indices


def _ahead(probs: Tensor) -> Tensor:
    """Mass of the classes that are ranked before each, shape (example, class)."""
    ranked = probs.topk(probs.shape[1], 1)
    ahead = ranked.values.cumsum(1) - ranked.values
    return torch.zeros_like(probs).scatter(1, ranked.indices, ahead)


def names_of(flags: Sequence[int]) -> tuple[str, ...]:
    """What flags are called; nothing for -1."""
    return tuple("" if flag < 0 else FLAGS[flag] for flag in flags)
