"""Bytes stay bytes: nothing on the way to the network makes floats of all of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtbkd.data import joined, make_dataset
from mtbkd.distillation.distill import distill
from mtbkd.explain.outside import see
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings
from mtbkd.outputs.aligned import align, make_table
from mtbkd.prior.settings import Prior, PriorSettings
from mtbkd.student.pixels import pixels_like
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.weights.directions import COLUMNS, few_columns, find_directions

N, CLASSES = 60, ("dark", "bright", "mixed")
CHANCE = np.random.default_rng(0)
LABELS = CHANCE.integers(0, 3, N)
BYTES = (40 + 80 * LABELS[:, None, None, None] + CHANCE.integers(0, 40, (N, 3, 6, 5))).astype("u1")


def network(pictures=BYTES) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        pixels_like(torch.from_numpy(pictures)),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def teachers(data):
    said = np.full((N, 3), 0.1)
    said[np.arange(N), LABELS] = 0.8
    given = {"kind": "probs", "ids": data.ids, "classes": CLASSES}
    tables = [make_table(name, said, **given) for name in ("a", "b")]
    return align(tables, data.ids, CLASSES)


def posterior(pictures, module=None, **settings):
    data = make_dataset(pictures, classes=CLASSES, labels=LABELS)
    return data, distill(
        network() if module is None else module,
        data,
        teachers(data),
        prior=PriorSettings(power=1.0, discount=0.0),
        modes=MapSettings(epochs=3, batch_size=20),
        sampler=SamplerSettings("sghmc", burn_in=10, draws=4, thinning=2, batch_size=20),
        chains=2,
        **settings,
    )


def test_pixels_are_standardised_in_each_channel():
    layer = pixels_like(torch.from_numpy(BYTES))
    found = layer(torch.from_numpy(BYTES))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3))
    assert torch.equal(found, layer(torch.from_numpy(BYTES).float()))


def test_a_channel_that_does_not_vary_stays_finite():
    flat = torch.full((5, 1, 2, 2), 7, dtype=torch.uint8)
    assert torch.equal(pixels_like(flat)(flat), torch.zeros(5, 1, 2, 2))


def test_bytes_stay_bytes_and_give_what_their_floats_give(tmp_path):
    data, found = posterior(BYTES, out=tmp_path)
    assert data.inputs.dtype == torch.uint8
    assert data.inputs.data_ptr() == BYTES.ctypes.data  # not copied
    assert joined(data, data).inputs.dtype == torch.uint8
    assert found.student.frozen is None  # floats of bytes are nothing to keep
    _, floats = posterior(BYTES.astype("f4"))
    for mine, theirs in zip(found.samples.segments, floats.samples.segments, strict=True):
        assert torch.equal(mine, theirs)
    answers = found.predict(BYTES), found.predict(BYTES.astype("f4")), floats.predict(BYTES)
    for other in answers[1:]:
        assert np.array_equal(answers[0].probs, other.probs)
    few = found.thin(2, BYTES)
    assert abs(few.predict(BYTES).probs - answers[0].probs).max() < 0.2
    seen = see(found, found.student.features(data.inputs))
    assert seen.inputs.shape == (N, 90)
    assert seen.inputs.dtype == torch.float32


def test_a_minibatch_of_bytes_is_bytes():
    data = make_dataset(BYTES, classes=CLASSES, labels=LABELS)
    said = teachers(data)
    training = TrainingSet(data.inputs, data.labels, said.values, torch.zeros(2, N))
    batches = Minibatches(training, Prior(), chain_generators(0, 0, 2, torch.device("cpu")))
    assert batches(10).inputs.dtype == torch.uint8  # type: ignore[union-attr]
    assert batches(N).rows(slice(0, 5)).inputs.dtype == torch.uint8


@pytest.mark.parametrize("numbers", [np.uint8, np.int64])
def test_a_network_that_reads_floats_is_given_floats_of_whole_numbers(numbers):
    flat = BYTES.reshape(N, -1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(90, 4), nn.ReLU(), nn.Linear(4, 3))
    data, whole = posterior(flat.astype(numbers), module)
    assert data.inputs.dtype == (torch.uint8 if numbers is np.uint8 else torch.int64)
    assert not whole.student.whole_numbers
    _, floats = posterior(flat.astype("f4"), module)
    assert torch.equal(whole.samples.segments[0], floats.samples.segments[0])
    assert np.array_equal(whole.predict(flat).probs, floats.predict(flat.astype("f4")).probs)


def test_whether_a_network_reads_whole_numbers_is_seen():
    table, tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 2)), [[1, 2]]
    assert make_student(table).whole_numbers
    assert make_student(table, example=torch.tensor(tokens)).whole_numbers
    assert make_student(network(), example=torch.from_numpy(BYTES)).whole_numbers
    assert not make_student(nn.Linear(2, 2), example=torch.tensor(tokens)).whole_numbers


def test_many_columns_become_few_and_keep_distances():
    values = torch.randn(40, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    bytes_ = (values * 30 + 120).clamp(0, 255).to(torch.uint8)
    few = few_columns(bytes_)
    assert few.shape == (40, COLUMNS)
    ratio = torch.pdist(few) / torch.pdist(bytes_.flatten(1).float())
    assert abs(ratio - 1).max() < 0.15
    assert abs(ratio.mean() - 1) < 0.02
    torch.testing.assert_close(few_columns(bytes_[7:9]), few[7:9])
    assert torch.equal(few_columns(bytes_[:, :, :8]), bytes_[:, :, :8].flatten(1).float())


def test_directions_are_found_in_bytes_of_any_shape():
    wide = torch.from_numpy(np.repeat(np.repeat(BYTES, 6, 2), 6, 3))
    for pictures in (torch.from_numpy(BYTES), wide):
        found = find_directions(pictures)
        place = found.place(pictures)
        assert found.axes.shape[0] == min(COLUMNS, pictures[0].numel())
        assert abs(np.corrcoef(place[:, 0].numpy(), LABELS)[0, 1]) > 0.95  # brightness comes first
        floats = find_directions(pictures.float())
        assert torch.equal(floats.axes, found.axes)


def test_the_claim_of_a_folder_tells_other_bytes(tmp_path):
    posterior(BYTES, out=tmp_path)
    other = BYTES.copy()
    other[3, 0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="what differs: data"):
        posterior(other, out=tmp_path)


def test_floats_that_are_larger_than_what_they_are_made_of_are_not_kept():
    example = torch.from_numpy(BYTES[:2])
    smaller = nn.Sequential(pixels_like(example), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(6, 3))
    assert make_student(smaller, example=example).frozen is not None
    with_cost = nn.Sequential(nn.Identity(), network(), nn.Linear(3, 3))
    split = make_student(with_cost, sampled="2.*", example=example)
    assert split.frozen is not None
    assert replace(split, frozen=None).read(split.features(example)).dtype == torch.float32
