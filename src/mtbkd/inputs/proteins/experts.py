"""Small networks that see a part of a protein, or all of it, and say where in the cell it is.

Each is an expert by what it can see: residues at one end, where most sorting signals are, or the
chain as a whole. All answer several labels, each yes or no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtbkd.inputs.proteins.scales import TABLE
from mtbkd.types import Floats32, Ints

Pieces = Sequence[npt.NDArray[np.uint8]]
"""Residues as numbers from 1, one array for each protein; 0 stands for none."""

_RESIDUES = int(TABLE.max()) + 1
_REACH = 30.0  # residues after which the distance from an end has faded to 1/e
_BUCKET = 32  # batches whose proteins are sorted by length together
_CLIP, _RATE = 1.0, 2e-3  # of the gradient, and Adam's highest, with a cosine to zero
_HELD, _PATIENCE = 0.1, 3  # the share that chooses the best epoch; epochs without a better one


def first(sequences: Sequence[str], n: int) -> Pieces:
    """The first residues of each protein, from its start."""
    return [_numbers(sequence[:n]) for sequence in sequences]


def last(sequences: Sequence[str], n: int) -> Pieces:
    """The last residues of each protein, from its end: the very last one comes first."""
    return [_numbers(sequence[-n:][::-1]) for sequence in sequences]


def both_ends(sequences: Sequence[str], n: int) -> Pieces:
    """Each protein, without the middle of those of more than ``n`` residues."""
    half = n // 2
    return [_numbers(s if len(s) <= n else s[: n - half] + s[len(s) - half :]) for s in sequences]


class EndExpert(nn.Module):
    """Reads the residues at one end of a protein, and knows how far each is from the end."""

    def __init__(self, n_labels: int, n_residues: int, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_RESIDUES + 1, 24, padding_idx=0)
        self.place = nn.Parameter(torch.zeros(24, n_residues))
        self.layers = nn.Sequential(
            nn.Conv1d(24, width, 7, padding=3), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(width, width, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
            nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(width * (n_residues // 4), width), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(width, n_labels),
        )  # fmt: skip

    def forward(self, residues: Tensor) -> Tensor:
        """Numbers of residues (protein, position), 0 where none is, to logits of yes."""
        n = self.place.shape[1]
        residues = nn.functional.pad(residues, (0, n - residues.shape[1]))
        there = (residues > 0).unsqueeze(1)
        return self.layers((self.embedding(residues).movedim(2, 1) + self.place) * there)


class ChainExpert(nn.Module):
    """Reads a whole chain: motifs anywhere, and how far they are from both ends."""

    def __init__(self, n_labels: int, widths: tuple[int, int] = (48, 96), heads: int = 8) -> None:
        super().__init__()
        narrow, wide = widths
        self.embedding = nn.Embedding(_RESIDUES + 1, 22, padding_idx=0)
        self.near = nn.Conv1d(24, narrow, 7, padding=3)
        self.far = nn.Conv1d(narrow, wide, 5, padding=2)
        self.look = nn.Conv1d(wide, heads, 1)
        self.heads = heads
        self.answer = nn.Sequential(
            nn.Dropout(0.3), nn.Linear(2 * wide + narrow, 128), nn.ReLU(), nn.Dropout(0.3),
            nn.Linear(128, n_labels),
        )  # fmt: skip

    def forward(self, residues: Tensor) -> Tensor:
        """Numbers of residues (protein, position), 0 where none is, to logits of yes."""
        there = residues > 0
        size = there.sum(1, keepdim=True)
        place = torch.arange(residues.shape[1], device=residues.device)
        ends = torch.stack([place.expand_as(residues), size - 1 - place], 1)
        ends = torch.exp(-ends.clamp_min(0) / _REACH) * there.unsqueeze(1)
        x = torch.cat([self.embedding(residues).movedim(2, 1), ends], 1)
        x = torch.relu(self.near(x)) * there.unsqueeze(1)
        motifs = x.amax(2)
        x = nn.functional.max_pool1d(x, 4, ceil_mode=True)
        there = there[:, ::4].unsqueeze(1)
        x = torch.relu(self.far(x)) * there
        shares = self.look(x).masked_fill(~there, -torch.inf).softmax(2)
        seen = x.unflatten(1, (self.heads, -1)) * shares.unsqueeze(2)
        return self.answer(torch.cat([seen.sum(3).flatten(1), x.amax(2), motifs], 1))


def school(
    build: Callable[[], nn.Module],
    pieces: Pieces,
    labels: Floats32,
    rows: Ints,
    seed: int,
    *,
    epochs: int,
    batch_size: int = 64,
) -> nn.Module:
    """Train a network on some proteins; it keeps the epoch that is best on a part of them.

    Labels are 0 or 1, shape (protein, label); ``epochs`` are so many at most. PyTorch's own
    generator is left as it was.
    """
    chance = np.random.default_rng(seed)
    rows = chance.permutation(rows)
    n_held = max(1, round(_HELD * len(rows)))
    held, taught = rows[:n_held], rows[n_held:]
    targets = torch.from_numpy(labels)
    n_steps = epochs * -(-len(taught) // batch_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = build()
        optimiser = torch.optim.AdamW(network.parameters(), _RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
        best, kept, since = np.inf, network.state_dict(), 0
        for _ in range(epochs):
            network.train()
            for batch in _batches(pieces, taught, batch_size, chance):
                loss = nn.functional.binary_cross_entropy_with_logits(
                    network(_padded(pieces, batch)), targets[batch]
                )
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
                optimiser.step()
                schedule.step()
            score = _loss(probabilities(network, pieces, held), labels[held])
            since += 1
            if score < best:
                best, since = score, 0
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            if since >= _PATIENCE:
                break
    network.load_state_dict(kept)
    return network.eval()


def probabilities(
    network: nn.Module, pieces: Pieces, rows: Ints, batch_size: int = 256
) -> Floats32:
    """How probable each label of these proteins is, shape (protein, label)."""
    network.eval()
    order = np.argsort([len(pieces[row]) for row in rows], kind="stable")
    with torch.inference_mode():
        answers = [
            torch.sigmoid(network(_padded(pieces, rows[order[start : start + batch_size]])))
            for start in range(0, len(rows), batch_size)
        ]
    return torch.cat(answers).numpy()[np.argsort(order)]


def _numbers(sequence: str) -> npt.NDArray[np.uint8]:
    text = np.frombuffer(sequence.encode("ascii", "replace"), np.uint8)
    return (TABLE[text] + 1).astype(np.uint8)


def _padded(pieces: Pieces, rows: Ints) -> Tensor:
    """These proteins as one table of numbers, (protein, position)."""
    found = [torch.from_numpy(pieces[row]) for row in rows]
    return nn.utils.rnn.pad_sequence(found, batch_first=True).long()


def _batches(pieces: Pieces, rows: Ints, size: int, chance: np.random.Generator) -> Iterator[Ints]:
    """All proteins once, in batches of similar length, in random order."""
    rows = chance.permutation(rows)
    batches = []
    for start in range(0, len(rows), size * _BUCKET):
        bucket = rows[start : start + size * _BUCKET]
        bucket = bucket[np.argsort([len(pieces[row]) for row in bucket], kind="stable")]
        batches += [bucket[i : i + size] for i in range(0, len(bucket), size)]
    for i in chance.permutation(len(batches)):
        yield batches[i]


def _loss(probs: Floats32, labels: Floats32) -> float:
    """Mean negative log probability, in nats."""
    answer = np.where(labels == 1, probs, 1 - probs)
    return float(-np.log(np.maximum(answer, 1e-7)).mean())
