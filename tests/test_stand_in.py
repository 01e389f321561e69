"""What a budget spares networks whose chains go one by one."""

from dataclasses import replace

import torch
from torch import nn

import mtbkd
from mtbkd.distillation.distill import nobody
from mtbkd.distillation.shares import Shares
from mtbkd.distillation.stand_in import fewer_draws, stand_in
from mtbkd.distillation.trials import Trials
from mtbkd.inference.modes import MapSettings
from mtbkd.student.convolutional import convolutional
from mtbkd.student.student import make_student
from mtbkd.training import training_set
from mtbkd.weights.rules import Weighting

PICTURES = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator())
DATA = mtbkd.make_dataset(PICTURES, labels=[i % 2 for i in range(40)], classes=["a", "b"])


LONG = Shares(epochs=1, tried_epochs=1, compared=1, steps=1000)


def trials_of(network, data=DATA):
    student = make_student(network, example=data.inputs[:2])
    training = training_set(student, data, nobody(data), Weighting("uniform"))
    return Trials(student, training, MapSettings(epochs=2), data.subset(range(10)))


def test_a_convolutional_network_has_a_dense_one_that_reads_the_same_examples():
    trials = trials_of(convolutional(PICTURES, 2))
    instead = stand_in(trials)
    assert instead.student.dense is not None
    assert not instead.student.passage.in_turn
    torch.testing.assert_close(instead.training.labels, trials.training.labels)
    assert instead.training.features.shape == (40, 48)
    # examples of both splits are read in the same way
    torch.testing.assert_close(instead.training.features[:10], instead.calibration.inputs)
    position = instead.student.initial_position([torch.Generator()])[0]
    assert instead.student.logits(position, instead.training.features).shape == (40, 2)


def test_what_is_cheap_or_words_is_tried_itself():
    flat = trials_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    assert stand_in(flat) is flat
    words = mtbkd.make_dataset(
        torch.arange(120).reshape(40, 3) % 7, labels=[0, 1] * 20, classes=["a", "b"]
    )
    bag = trials_of(nn.Sequential(nn.EmbeddingBag(7, 4), nn.Linear(4, 2)), words)
    assert bag.student.passage.in_turn
    assert stand_in(bag) is bag


def test_dear_networks_keep_few_draws_of_as_many_steps():
    asked = mtbkd.SamplerSettings(draws=50, thinning=4)
    few = fewer_draws(asked, trials_of(convolutional(PICTURES, 2)).student, LONG)
    assert (few.draws, few.thinning) == (20, 10)
    assert (
        fewer_draws(asked, trials_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))).student, LONG)
        == asked
    )


def test_fewer_draws_still_where_answers_would_cost_much_of_the_time():
    asked = mtbkd.SamplerSettings(draws=50, thinning=4)
    dense = trials_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))).student
    made = [fewer_draws(asked, dense, replace(LONG, steps=steps)) for steps in (1e9, 250, 10)]
    assert [each.draws for each in made] == [50, 25, 8]
    assert [each.draws * each.thinning for each in made] == [200, 200, 200]
