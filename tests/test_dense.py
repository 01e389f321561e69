"""The fast path of dense heads against autograd."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mtbkd.inference.chains import chainwise_gradient
from mtbkd.observation import CATEGORICAL
from mtbkd.prior.mixture import Strength, mixture_terms
from mtbkd.student.curvature import last_layer, precision
from mtbkd.student.dense import forward
from mtbkd.student.log_posterior import log_posterior, posterior_gradient
from mtbkd.student.student import make_student
from mtbkd.types import Batch


class Residual(nn.Module):
    """A head that is no plain stack."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 5), nn.Linear(5, 4)

    def forward(self, x):
        return self.outer(x + torch.tanh(self.inner(x)))


HEADS = {
    "one layer": (nn.Sequential(nn.Linear(5, 4)), True),
    "relu": (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4)), True),
    "no bias": (nn.Sequential(nn.Linear(5, 7, bias=False), nn.GELU(), nn.Linear(7, 4)), True),
    "deep": (
        nn.Sequential(
            nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.SiLU(), nn.ELU(), nn.Linear(6, 4)
        ),
        True,
    ),
    "normalised": (nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 4)), False),
    "residual": (Residual(), False),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_gradient_is_that_of_autograd(name, shared):
    head, dense = HEADS[name]
    student = make_student(head, weight_scale=2.0)
    assert (student.dense is not None) is dense
    generator = torch.Generator().manual_seed(2)
    terms = mixture_terms(
        torch.randn(3, 9, 4, generator=generator).log_softmax(-1),
        torch.randn(3, 9, generator=generator).log_softmax(0),
        7.0,
    )
    labels = torch.tensor([0, -1, 2, 3, -1, -1, 1, 0, 2])
    one = Batch(torch.randn(9, 5, generator=generator), labels, terms)
    batch = one.each(lambda part: part.expand(2, *part.shape))
    if not shared:
        batch = batch._replace(inputs=torch.randn(2, 9, 5, generator=generator))
    position = torch.randn(2, student.n_parameters, generator=generator)
    strength = Strength(power=0.7, student_softening=1.5)
    expected = chainwise_gradient(log_posterior(student, 30, strength))(position, batch)
    found = posterior_gradient(student, 30, strength)(position, batch)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-6, rtol=1e-4)
    again = posterior_gradient(student, 30, strength)(position, batch)[1]
    torch.testing.assert_close(again, found[1])


def test_a_head_with_frozen_parameters_is_not_dense():
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4))
    student = make_student(network, sampled="2.*")
    assert student.dense is None


class Backwards(nn.Sequential):
    """A stack by its type, but not by what it does."""

    def forward(self, x):
        return self[2](self[1](self[0](-x)))


def shared(activation):
    return nn.Sequential(nn.Linear(5, 6), activation, nn.Linear(6, 6), activation, nn.Linear(6, 4))


def ends_in_shared():
    activation = nn.Tanh()
    return nn.Sequential(nn.Linear(5, 6), activation, nn.Linear(6, 4), activation)


def tied_layer():
    inner = nn.Linear(6, 6)
    return nn.Sequential(nn.Linear(5, 6), inner, nn.Tanh(), inner, nn.Linear(6, 4))


def tied_weight():
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(5, 4))


def nested():
    inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6, bias=False), nn.Sequential())
    return nn.Sequential(nn.Sequential(nn.Linear(5, 6), inner), nn.GELU(), nn.Linear(6, 4))


def hooked():
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    network[1].register_forward_hook(lambda module, args, out: 2 * out)
    return network


def patched():
    network = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
    network[1].forward = torch.sin
    return network


NETWORKS = {
    "shared ReLU": lambda: shared(nn.ReLU()),
    "shared Tanh": lambda: shared(nn.Tanh()),
    "shared in-place ELU": lambda: shared(nn.ELU(inplace=True)),
    "in-place ReLU first": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 4)),
    "ends in a shared activation": ends_in_shared,
    "tied layer": tied_layer,
    "tied layer last": lambda: nn.Sequential(*[nn.Linear(5, 5)] * 2, *[nn.Linear(5, 4)]),
    "the same layer twice": lambda: nn.Sequential(*[nn.Linear(5, 5)] * 2),
    "tied weight": tied_weight,
    "nested": nested,
    "no biases": lambda: nn.Sequential(
        nn.Linear(5, 6, bias=False), nn.LeakyReLU(0.3, inplace=True), nn.Linear(6, 4, bias=False)
    ),
    "dropout": lambda: nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 4)),
    "another forward": lambda: Backwards(nn.Linear(5, 6), nn.SiLU(), nn.Linear(6, 4)),
    "hook": hooked,
    "replaced forward": patched,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(),
        nn.Linear(9, 4),
    ),
    "bare layer": lambda: nn.Linear(5, 4),
    "residual": Residual,
}  # fmt: skip


def case_of(name):
    """A network as PyTorch runs it, its student, and a batch for two chains, in float64."""
    torch.manual_seed(3)
    network = NETWORKS[name]().double()
    student = make_student(copy.deepcopy(network), weight_scale=1.5)
    student = replace(
        student,
        prior_mean=student.prior_mean.double(),
        prior_scale=student.prior_scale.double(),
    )
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    n_classes = network.eval()(inputs.clone()).shape[-1]
    said = torch.randn(2, 7, n_classes, generator=generator, dtype=torch.float64)
    terms = mixture_terms(said.log_softmax(-1), torch.full((2, 7), 0.5).double().log(), 4.0)
    batch = Batch(inputs, torch.tensor([0, -1, 2, 3, -1, -1, 1]), terms)
    position = torch.randn(2, student.n_parameters, generator=generator, dtype=torch.float64)
    return network, student, batch.each(lambda p: p.expand(2, *p.shape)), position


def as_pytorch_runs_it(network, student, position, inputs):
    """The network itself with the parameters copied in: no path of the student's."""
    with torch.no_grad():
        for name, value in student.unflatten(student.natural(position)).items():
            network.get_parameter(name).copy_(value)
        return network(inputs.clone())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_path_is_that_of_the_network_itself(name):
    network, student, batch, position = case_of(name)
    inputs = batch.inputs[0].clone()
    for chain in range(2):
        expected = as_pytorch_runs_it(network, student, position[chain], inputs)
        torch.testing.assert_close(student.logits(position[chain], inputs), expected)
        if student.dense is not None:
            named = student.unflatten(student.natural(position))
            stacked, _ = forward(student.dense, named, batch.inputs)
            torch.testing.assert_close(stacked[chain], expected)
    assert torch.equal(inputs, batch.inputs[0])
    strength = Strength(power=0.7)
    expected = chainwise_gradient(log_posterior(student, 30, strength))(position, batch)
    found = posterior_gradient(student, 30, strength)(position, batch)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_curvature_is_that_of_the_network_itself(name):
    _, student, batch, position = case_of(name)
    kinds = ["diagonal"] + ["last_layer"] * (last_layer(student) is not None)
    for kind in kinds:
        found = precision(student, position, batch, Strength(0.5), kind)
        for chain in range(2):
            z, own = position[chain], batch.chain(chain)
            jacobian = torch.func.jacrev(lambda z: student.logits(z, own.inputs))(z)  # noqa: B023
            outputs = student.logits(z, own.inputs)
            roots = CATEGORICAL.roots(outputs, own, Strength(0.5))
            pulls = torch.einsum("ncp,ncr->nrp", jacobian, roots).flatten(0, 1)
            expected = pulls.mT @ pulls + torch.eye(len(z)).double()
            which = found.which[chain]
            expected = expected[which][:, which]
            expected = expected.diagonal() if kind == "diagonal" else expected
            torch.testing.assert_close(found.matrix[chain], expected)


@pytest.mark.parametrize(
    ("name", "dense"),
    [("shared Tanh", True), ("tied layer", True), ("tied weight", True), ("nested", True),
     ("no biases", True), ("another forward", False), ("hook", False), ("replaced forward", False),
     ("convolution", False)],
)  # fmt: skip
def test_what_the_fast_path_takes(name, dense):
    assert (case_of(name)[1].dense is not None) is dense


@pytest.mark.parametrize("name", ["ends in a shared activation", "the same layer twice"])
def test_a_layer_that_is_not_last_or_is_used_twice_is_no_last_layer(name):
    assert last_layer(case_of(name)[1]) is None


def test_parameters_under_a_second_name_are_not_fixed():
    assert case_of("tied layer")[1].fixed() == {}
