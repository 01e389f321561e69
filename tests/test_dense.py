"""The fast path of dense heads against autograd."""

import pytest
import torch
from torch import nn

from mtbkd.inference.chains import chainwise_gradient
from mtbkd.prior.mixture import Strength, mixture_terms
from mtbkd.student.dense import is_dense
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
    assert is_dense(student.head, student.names) is dense
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
    assert not is_dense(student.head, student.names)
