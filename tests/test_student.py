"""The student: what is sampled, what is frozen and runs once, and the prior of each layer."""

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mtbkd.inference.chains import chain_generators
from mtbkd.student.student import make_student
from mtbkd.types import InputError

INPUTS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


class Nested(nn.Module):
    """A backbone with a head, as pretrained networks come."""

    def __init__(self, head: nn.Module | None = None, after: float = 1.0) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.head = nn.Linear(6, 3) if head is None else head
        self.after = after

    def forward(self, x):
        return self.after * self.head(self.backbone(x))


class Listed(nn.Module):
    """Layers in a list, which is never called itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 3)])

    def forward(self, x):
        for layer in (self.stem, *self.layers):
            x = layer(x)
        return x


def layers():
    return nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)


def named():
    return nn.Sequential(OrderedDict(zip(("a", "b", "c", "d", "e"), layers(), strict=True)))


def two_layer_head():
    return nn.Sequential(nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


SPLITS = {
    "last of a Sequential": (lambda: nn.Sequential(*layers()), "4.*", 18),
    "middle of a Sequential": (lambda: nn.Sequential(*layers()), ("2.*", "4.*"), 53),
    "named Sequential": (named, ("c.*", "e.*"), 53),
    "head": (Nested, "head.*", 21),
    "weight of the head": (Nested, "head.weight", 18),
    "Sequential head": (lambda: Nested(two_layer_head()), "head.*", 53),
    "end of a Sequential head": (lambda: Nested(two_layer_head()), "head.3.*", 18),
}


@pytest.mark.parametrize("case", SPLITS)
def test_frozen_part_is_split_off_and_runs_once_for_each_example(case):
    build, pattern, n_parameters = SPLITS[case]
    torch.manual_seed(0)
    network = build()
    expected = network(INPUTS).detach()
    student = make_student(network, sampled=pattern, example=INPUTS[:2])
    seen = []
    first = next(m for m in network.modules() if isinstance(m, nn.Linear))
    first.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))

    features = student.features(INPUTS, batch_size=4)
    assert seen == [4, 4, 1]
    own = torch.cat([student.head.get_parameter(n).flatten() for n in student.names])
    assert student.n_parameters == len(own) == n_parameters
    for _ in range(5):
        logits = student.logits_at(own, features)
    torch.testing.assert_close(logits, expected)
    assert sum(seen) == len(INPUTS)
    assert not torch.allclose(student.logits_at(own + 1, features), expected)


@pytest.mark.parametrize("example", [None, INPUTS[:2]])
def test_everything_is_sampled_by_default(example):
    network = nn.Sequential(*layers())
    student = make_student(network, example=example)
    assert student.names == tuple(n for n, _ in network.named_parameters())
    assert student.n_parameters == sum(p.numel() for p in network.parameters())
    assert student.frozen is None
    assert student.features(INPUTS) is INPUTS


def test_layers_without_parameters_before_the_first_sampled_one_are_frozen_too():
    student = make_student(nn.Sequential(nn.Flatten(), *layers()), example=INPUTS[:2, :, None])
    assert student.n_parameters == 83
    own = torch.cat([student.head.get_parameter(n).flatten() for n in student.names])
    features = student.features(INPUTS[:, :, None])
    torch.testing.assert_close(student.logits_at(own, features), student.head(features))


def test_without_an_example_the_whole_network_is_the_head():
    network = Nested()
    student = make_student(network, sampled="head.*")
    assert student.frozen is None
    assert student.names == ("head.weight", "head.bias")
    own = torch.cat([network.get_parameter(n).flatten() for n in student.names])
    torch.testing.assert_close(student.logits_at(own, INPUTS), network(INPUTS))


UNSPLITTABLE = {
    "scaled after": (lambda: Nested(after=2.0), "head.*", "head"),
    "another layer after": (Nested, "backbone.*", "backbone.0"),
    "middle of a Sequential alone": (lambda: nn.Sequential(*layers()), "2.*", "2"),
    "a list of layers": (Listed, "layers.*", "layers"),
}


@pytest.mark.parametrize("case", UNSPLITTABLE)
def test_network_that_cannot_be_split_warns_and_stays_right(case):
    build, pattern, where = UNSPLITTABLE[case]
    network = build()
    with pytest.warns(UserWarning, match=f"The network does more after `{where}` than return its"):
        student = make_student(network, sampled=pattern, example=INPUTS[:2])
    assert student.frozen is None
    own = torch.cat([network.get_parameter(n).flatten() for n in student.names])
    torch.testing.assert_close(student.logits_at(own, student.features(INPUTS)), network(INPUTS))


def test_split_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_student(Nested(), sampled="head.*", example=INPUTS[:2])


def test_no_match_is_an_input_error_that_lists_the_parameters():
    message = (
        r"Expected a parameter matching top.\*, crown, but the network has backbone.0.weight, "
        r"backbone.0.bias, head.weight, head.bias. Change the pattern `sampled`."
    )
    with pytest.raises(InputError, match=message):
        make_student(Nested(), sampled=("top.*", "crown"))


@pytest.mark.parametrize("weight_scale", [1.0, 3.0])
@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (nn.Linear(7, 2), 7),
        (nn.Conv1d(3, 2, kernel_size=5), 15),
        (nn.Conv2d(4, 2, kernel_size=(3, 2)), 24),
        (nn.Conv2d(4, 2, kernel_size=3, groups=2), 18),
    ],
)
def test_prior_scale_is_that_of_the_layers_fan_in(layer, fan_in, weight_scale):
    student = make_student(nn.Sequential(layer), weight_scale=weight_scale)
    expected = torch.full((student.n_parameters,), weight_scale / fan_in**0.5)
    torch.testing.assert_close(student.prior_scale, expected)
    assert torch.equal(student.prior_mean, torch.zeros(student.n_parameters))


def test_each_matrix_of_a_layer_has_its_own_fan_in_and_a_row_that_is_looked_up_none():
    student = make_student(nn.GRU(7, 3), weight_scale=2.0)
    assert student.scales() == pytest.approx({
        "weight_ih_l0": 2 / 7**0.5, "weight_hh_l0": 2 / 3**0.5,
        "bias_ih_l0": 2 / 7**0.5, "bias_hh_l0": 2 / 7**0.5,
    })  # fmt: skip
    assert make_student(nn.Embedding(9, 4), weight_scale=2.0).scales() == {"weight": 2.0}


@pytest.mark.parametrize("norm", [nn.LayerNorm(5), nn.BatchNorm1d(5), nn.GroupNorm(1, 5)])
def test_normalisations_are_centred_at_their_present_value(norm):
    with torch.no_grad():
        norm.weight.copy_(torch.arange(5.0))
        norm.bias.fill_(0.3)
    student = make_student(nn.Sequential(nn.Linear(4, 5), norm), weight_scale=2.0)
    assert student.names[2:] == ("1.weight", "1.bias")
    assert student.prior_mean[25:].tolist() == pytest.approx([*range(5), *[0.3] * 5])
    assert student.prior_scale[25:].tolist() == [2.0] * 10
    assert torch.equal(student.prior_mean[:25], torch.zeros(25))


def test_positions_and_parameters_convert_both_ways():
    student = make_student(nn.Sequential(*layers(), nn.LayerNorm(3)), weight_scale=2.0)
    position = torch.randn(2, 7, student.n_parameters, generator=torch.Generator().manual_seed(1))
    parameters = student.natural(position)
    torch.testing.assert_close(parameters.mean(), student.prior_mean.mean(), atol=0.1, rtol=0)
    torch.testing.assert_close(student.standardised(parameters), position)
    named_parts = student.unflatten(parameters)
    assert {n: tuple(p.shape) for n, p in named_parts.items()} == {
        n: (2, 7, *s) for n, s in zip(student.names, student.shapes, strict=True)
    }
    flat = torch.cat([p.flatten(2) for p in named_parts.values()], dim=-1)
    assert torch.equal(flat, parameters)
    head = nn.Sequential(*layers(), nn.LayerNorm(3))
    head.load_state_dict({n: p[1, 3] for n, p in named_parts.items()})
    torch.testing.assert_close(student.logits(position[1, 3], INPUTS), head(INPUTS).detach())


def test_initial_position_of_a_chain_is_its_own():
    student = make_student(nn.Sequential(*layers(), nn.LayerNorm(3)))
    device = torch.device("cpu")
    one, many = (student.initial_position(chain_generators(0, 0, n, device)) for n in (1, 100))
    assert torch.equal(one[0], many[0])
    assert not torch.allclose(many[0], many[1])
    is_matrix = torch.cat([torch.full((s.numel(),), len(s) > 1) for s in student.shapes])
    assert (many[:, ~is_matrix] == 0).all()
    assert many[:, is_matrix].std().item() == pytest.approx(1.0, abs=0.03)


def test_network_is_left_in_evaluation_mode_without_gradients():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    student = make_student(network)
    assert not any(p.requires_grad for p in network.parameters())
    position = torch.ones(student.n_parameters)
    assert torch.equal(student.logits(position, INPUTS), student.logits(position, INPUTS))
