"""Any network as a student: each works, or is refused with the reason."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from mtbkd.inference.chains import chain_generators, in_parts
from mtbkd.observation import CATEGORICAL
from mtbkd.prior.mixture import Prior, mixture_terms
from mtbkd.student.curvature import precision
from mtbkd.student.log_posterior import log_posterior, posterior_gradient
from mtbkd.student.student import make_student
from mtbkd.student.summary import summary
from mtbkd.types import Batch, InputError

ROWS, CHAINS, LENGTH = 7, 3, 6


class Calls(nn.Module):
    """A module made of parts and a function of them."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Overwrites(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0)


def tied() -> nn.Module:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(nn.Linear(LENGTH, 6), first, nn.Tanh(), second, nn.LayerNorm(6), last())


def last() -> nn.Module:
    return nn.Linear(6, 3)


def pooled(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last())


def trained_norm() -> nn.Module:
    norm = nn.BatchNorm2d(6)
    norm(3 + 2 * torch.randn(50, 6, 4, 4))
    return norm


def attention() -> nn.MultiheadAttention:
    return nn.MultiheadAttention(6, 2, batch_first=True)


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)


def seen(shape=(LENGTH,)) -> Tensor:
    return torch.randn(ROWS, *shape)


def tokens() -> Tensor:
    return torch.randint(9, (ROWS, LENGTH))


def pictures(channels=2) -> Tensor:
    return torch.randn(ROWS, channels, 5, 5)


WORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "convolutions": (lambda: pooled(nn.Conv2d(2, 6, 3), nn.ReLU()), pictures),
    "grouped convolutions": (lambda: pooled(nn.Conv2d(2, 6, 3, groups=2)), pictures),
    "transposed convolutions": (lambda: pooled(nn.ConvTranspose2d(2, 6, 3)), pictures),
    "a view that wants channels first": (
        lambda: Calls(lambda m, x: m.b(m.a(x).view(len(x), -1)), a=nn.Conv2d(2, 2, 3),
                      b=nn.Linear(18, 3)), pictures),
    "convolutions over time": (
        lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.AdaptiveMaxPool1d(1), nn.Flatten(), last()),
        lambda: seen((2, 8))),
    "BatchNorm": (lambda: pooled(nn.Conv2d(2, 6, 3), trained_norm(), nn.ReLU()), pictures),
    "GroupNorm": (lambda: pooled(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU()), pictures),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(LENGTH, 6), nn.LayerNorm(6), last()), seen),
    "RMSNorm": (lambda: nn.Sequential(nn.Linear(LENGTH, 6), nn.RMSNorm(6), last()), seen),
    "InstanceNorm": (lambda: pooled(nn.Conv2d(2, 6, 3), nn.InstanceNorm2d(6)), pictures),
    "dropout": (lambda: nn.Sequential(nn.Linear(LENGTH, 6), nn.Dropout(0.5), last()), seen),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Linear(LENGTH, 6)), nn.Tanh(), last()),
                    seen),
    "weight norm of convolutions": (lambda: pooled(weight_norm(nn.Conv2d(2, 6, 3))), pictures),
    "spectral norm": (lambda: nn.Sequential(spectral_norm(nn.Linear(LENGTH, 6)), last()), seen),
    "tied weights": (tied, seen),
    "residuals": (
        lambda: Calls(lambda m, x: m.b(x + torch.relu(m.a(x))), a=nn.Linear(6, 6), b=last()), seen),
    "activations in place": (
        lambda: pooled(nn.Conv2d(2, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1),
                       nn.SiLU(inplace=True)), pictures),
    "functions in place": (
        lambda: Calls(lambda m, x: m.b(m.a(x).relu_()), a=nn.Linear(6, 6), b=last()),
        seen),
    "embeddings": (
        lambda: Calls(lambda m, x: m.b(m.a(x).mean(1)), a=nn.Embedding(9, 6), b=last()), tokens),
    "bags of embeddings": (lambda: nn.Sequential(nn.EmbeddingBag(9, 6), last()), tokens),
    "attention": (
        lambda: Calls(lambda m, x: m.b(m.a(x, x, x)[0].mean(1)), a=attention(), b=last()),
        lambda: seen((4, 6))),
    "a transformer": (
        lambda: Calls(lambda m, x: m.c(m.b(m.a(x)).mean(1)), a=nn.Embedding(9, 6),
                      b=transformer(), c=last()), tokens),
    "LSTM": (lambda: Calls(lambda m, x: m.b(m.a(x)[0][:, -1]), a=nn.LSTM(2, 6, batch_first=True),
                           b=last()), lambda: seen((5, 2))),
    "LSTM of two layers, both ways": (
        lambda: Calls(lambda m, x: m.b(m.a(x)[0][:, -1]), b=nn.Linear(12, 3),
                      a=nn.LSTM(2, 6, 2, batch_first=True, bidirectional=True)),
        lambda: seen((5, 2))),
    "GRU": (lambda: Calls(lambda m, x: m.b(m.a(x)[1][0]), a=nn.GRU(2, 6, batch_first=True),
                          b=last()), lambda: seen((5, 2))),
    "a way that depends on values": (
        lambda: Calls(lambda m, x: m.b(m.a(x) if x.sum() > -1e9 else x), a=nn.Linear(6, 6),
                      b=last()), seen),
    "a parameter without effect": (
        lambda: Calls(lambda m, x: m.b(x), a=nn.LayerNorm(3), b=last()), seen),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], str]] = {
    "statistics of the batch": (
        lambda: nn.Sequential(nn.Linear(LENGTH, 6), nn.BatchNorm1d(6, track_running_stats=False),
                              last()), seen, "does not depend on the others beside it"),
    "dropout that stays on": (
        lambda: Calls(lambda m, x: m.b(dropout(m.a(x), 0.5)), a=nn.Linear(6, 6), b=last()),
        seen, "answers the same when asked again"),
    "inputs overwritten": (
        lambda: Calls(lambda m, x: m.b(m.a(x)), a=Overwrites(), b=last()), seen,
        "leaves its inputs as they are"),
    "no gradient": (lambda: Calls(lambda m, x: m.b(m.a(x)).detach(), a=nn.Linear(6, 6), b=last()),
                    seen, "no gradient reaches them"),
    "overwritten before the backward pass": (
        lambda: Calls(lambda m, x: m.b(m.a(x).sigmoid().add_(1.0)), a=nn.Linear(6, 6), b=last()),
        seen, "can be differentiated, but got: one of the variables"),
    "a frozen part of batch statistics": (
        lambda: nn.Sequential(nn.BatchNorm1d(6, affine=False, track_running_stats=False), last()),
        seen, "does not depend on the others beside it"),
    "several examples as one": (lambda: nn.Sequential(last(), nn.Flatten(0)), seen,
                                "one tensor of shape"),
    "inputs of another size": (lambda: nn.Sequential(nn.Linear(LENGTH + 1, 3), nn.GELU(), nn.Tanh(),
                                                     nn.LayerNorm(3)), seen,
                               r"reads examples of shape \(6,\), but got: mat1 and mat2"),
    "several outputs": (lambda: Calls(lambda m, x: (m.b(x), x), b=last()), seen,
                        "one tensor of shape"),
}  # fmt: skip


def batch_of(x: Tensor) -> Batch:
    chance = torch.Generator().manual_seed(2)
    labels = torch.randint(-1, 3, (ROWS,), generator=chance)
    said = torch.rand(2, ROWS, 3, generator=chance)
    terms = mixture_terms(said.log_softmax(-1), torch.full((2, ROWS), np.log(0.5)), 2.0)
    one = Batch(x, labels, terms)
    return one.each(lambda part: part.expand(CHAINS, *part.shape).contiguous())


@pytest.mark.parametrize("name", WORKS)
def test_a_network_is_sampled_as_it_is(name):
    """Its gradient is that of its log posterior, chain by chain, at weights that it really uses."""
    torch.manual_seed(1)
    build, inputs = WORKS[name]
    network, x = build(), inputs()
    student = make_student(network, weight_scale=1.0, example=x[:2])
    assert student.n_parameters == sum(p.numel() for p in network.parameters())
    generators = chain_generators(0, 0, CHAINS, torch.device("cpu"))
    position = student.initial_position(generators)
    position += 0.1 * torch.randn(position.shape, generator=generators[0])
    batch = batch_of(x)
    values, grads = posterior_gradient(student, 40, Prior(1.5))(position, batch)
    density = log_posterior(student, 40, Prior(1.5))
    draws = student.natural(position)
    each = student.logits_each(draws, x)
    for chain in range(CHAINS):
        own = position[chain].clone().requires_grad_()
        value = density(own, batch.chain(chain))
        (expected,) = torch.autograd.grad(value, own)
        torch.testing.assert_close(values[chain], value.detach())
        torch.testing.assert_close(grads[chain], expected, rtol=1e-3, atol=1e-5)
        values_by_name = student.unflatten(draws[chain])
        with torch.no_grad():  # the plain network, its weights overwritten
            for parameter, new in values_by_name.items():
                network.get_parameter(parameter).copy_(new)
            torch.testing.assert_close(each[chain], network(x), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)


@pytest.mark.parametrize("name", ["convolutions", "LSTM"])
def test_few_examples_at_a_time_in_two_threads_give_what_all_give(name, monkeypatch):
    torch.manual_seed(1)
    build, inputs = WORKS[name]
    x = inputs()
    whole = make_student(build(), example=x[:2])
    parts = replace(whole, passage=whole.passage._replace(held=2**21))
    assert (whole.passage.in_turn, parts.passage.rows) == (True, 2)
    position = whole.initial_position(chain_generators(0, 0, CHAINS, torch.device("cpu")))
    prior = Prior(1.5, power=torch.tensor([0.5, 1.0, 2.0]))  # one for each chain
    values, grads = posterior_gradient(whole, 40, prior)(position, batch_of(x))
    for chain, power in enumerate((0.5, 1.0, 2.0)):
        one = posterior_gradient(whole, 40, Prior(1.5, power=power))(position, batch_of(x))
        torch.testing.assert_close((values[chain], grads[chain]), (one[0][chain], one[1][chain]))
    found = posterior_gradient(parts, 40, prior)(position, batch_of(x))
    torch.testing.assert_close(found, (values, grads))
    draws = whole.natural(position)
    torch.testing.assert_close(parts.logits_each(draws, x), whole.logits_each(draws, x))
    monkeypatch.setattr("mtbkd.inference.chains._MUCH", 1)
    plain = posterior_gradient(parts, 40, Prior(1.5))
    expected = tuple(part.clone() for part in plain(position, batch_of(x)))
    torch.testing.assert_close(in_parts(plain, work=1)(position, batch_of(x)), expected)


@pytest.mark.parametrize("name", ["convolutions", "LSTM", "weight norm", "residuals"])
def test_the_precision_of_any_network_is_that_of_its_outputs(name):
    """Against the Jacobian of its outputs, by autograd for one output after the other."""
    torch.manual_seed(1)
    build, inputs = WORKS[name]
    x = inputs()
    student = make_student(build(), example=x[:2])
    position = student.initial_position(chain_generators(0, 0, CHAINS, torch.device("cpu")))
    batch, prior = batch_of(x), Prior(1.5)
    found = precision(student, position, batch, prior, "diagonal").matrix
    for chain in range(CHAINS):
        own = position[chain].clone().requires_grad_()
        outputs, part = student.logits(own, x), batch.chain(chain)
        roots = CATEGORICAL.roots(outputs.detach(), part, prior)
        expected = torch.ones_like(own)
        for row in range(ROWS):
            rows = [torch.autograd.grad(o, own, retain_graph=True)[0] for o in outputs[row]]
            expected += (roots[row].mT @ torch.stack(rows)).square().sum(0)
        torch.testing.assert_close(found[chain], expected.detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_is_no_function_of_an_example_is_refused(name):
    torch.manual_seed(1)
    build, inputs, reason = REFUSED[name]
    network, x = build(), inputs()
    with pytest.raises(InputError, match=reason):
        make_student(network, example=x[:2])


def test_a_sentence_says_what_is_sampled_and_what_stays():
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3), trained_norm(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network.extend([nn.Linear(6, 6), nn.Tanh(), last()])
    part = make_student(network, sampled=("5.*", "7.*"), example=pictures())
    assert part.frozen is not None
    assert summary(part) == (
        "Sampled: 63 of 189 parameters (5.weight, 5.bias, 7.weight, 7.bias). Fixed: 126 parameters "
        "(0.weight, 0.bias, 1.weight, 1.bias); statistics of 1 normalisation; dropout, which is "
        "off."
    )
    assert summary(make_student(last())) == "Sampled: 21 of 21 parameters. Fixed: nothing."
    tower = nn.Sequential(*(nn.Linear(2, 2) for _ in range(4)))
    told = summary(make_student(tower, sampled="3.*", example=torch.zeros(2, 2)))
    assert "18 parameters (0.weight, 0.bias, 1.weight, 1.bias and 2 more)" in told


def test_patterns_choose_what_is_sampled_of_a_network_with_layers():
    torch.manual_seed(0)
    network, x = pooled(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1)), pictures()
    part = make_student(network, sampled=["2.*", "5.*"], example=x[:2])
    assert part.names == ("2.weight", "2.bias", "5.weight", "5.bias")
    own = torch.cat([network.get_parameter(name).flatten() for name in part.names])
    answers = part.logits_each(torch.stack([own, own + 0.1]), part.features(x))
    torch.testing.assert_close(answers[0], network(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(answers[0], answers[1])
