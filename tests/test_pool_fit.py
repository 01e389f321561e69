"""Fits of the pool against torch's own operations, and the minimiser against known minima."""

import math

import numpy as np
import pytest
import torch
from test_observation import CASES

from mtbkd.observation import Said
from mtbkd.weights.cells import Cells
from mtbkd.weights.newton import minimise
from mtbkd.weights.pool_fit import Scales, fit_pool, make_problems
from mtbkd.weights.rules import Seen, Stacked

SCALES = Scales(0.7, 0.9, by_input=0.4)


def cells_of(name: str) -> Cells:
    """Cells of a family, of which some teachers say nothing about some."""
    observation, said, labels, _ = CASES[name]
    generator = torch.Generator().manual_seed(0)
    shape = said().values.shape[:-1] if labels().dim() > 1 else said().values.shape[:2]
    return Cells(
        values=said().values,
        mask=torch.rand(shape, generator=generator) < 0.8,
        labels=labels(),
        kept=said().kept,
        observation=observation,
        place=torch.randn(shape[1], 2, generator=generator),
    )


def loss(cells: Cells, counts: torch.Tensor, z: torch.Tensor, scales: Scales) -> torch.Tensor:
    """Minus the log posterior at standard normal numbers, in the order of `Problems.sizes`."""
    values, observation, numeric = cells.values, cells.observation, cells.outcome.numeric
    features = observation.features(values)
    n_features, n_columns = features.shape[-1], 0 if numeric else cells.labels[0].numel()
    sizes = {
        "own": 1 + n_features,
        "by_class": values.shape[-1] if scales.by_class else 0,
        "by_input": cells.place.shape[-1],
        "temperature": 1,
        "gate": 0 if cells.gates is None else 1 + n_features,
        "column": n_columns if n_columns > 1 else 0,
    }
    parts = z[1:].view(len(values), -1).split(list(sizes.values()), 1)
    parts = dict(zip(sizes, parts, strict=True))
    intercept = parts["own"][:, 0]
    if sizes["column"]:
        intercept = intercept[:, None] + parts["column"]
    gate = None
    if cells.gates is not None:
        gate = 6.0 * parts["gate"]
        gate = torch.cat([gate[:, :1] + torch.from_numpy(cells.gates[0])[:, None], gate[:, 1:]], 1)
    fit = Stacked(
        intercept=scales.own * intercept[None],
        slope=scales.own * parts["own"][None, :, 1:],
        temperature=(scales.temperature * parts["temperature"][:, 0]).exp(),
        scale=scales.own,
        nobody=None if numeric else (-3 + 2 * z[0])[None],
        gate=gate,
        by_class=scales.by_class * parts["by_class"][None] if scales.by_class else None,
        by_input=scales.by_input * parts["by_input"][None],
    )
    seen = Seen(features, values.argmax(-1), cells.place)
    known = torch.from_numpy(cells.known).view(cells.labels.shape)
    log_weights, nobody = fit.log_weights(seen, cells.mask | ~known)
    said = Said(values, values[..., 0], cells.kept, fit.inside(seen))
    joint = log_weights + observation.score(said, cells.labels, fit.temperature)
    if nobody is not None:
        alike = nobody - math.log(observation.n_alike(values))
        joint = torch.cat([joint, alike[None]])
    each = torch.logsumexp(joint, 0) * counts.view(-1, *[1] * (known.dim() - 1))
    return 0.5 * z.square().sum() - each[known].sum()


@pytest.mark.parametrize("name", [name for name in CASES if "gated" not in name])
def test_slopes_and_curvatures_of_fits_are_those_of_autograd(name):
    cells = cells_of(name)
    scales = SCALES._replace(by_class=0.5) if name in ("classes", "gaps") else SCALES
    counts = torch.rand(2, len(cells.labels), generator=torch.Generator().manual_seed(1)).double()
    problems = make_problems(cells, [scales, scales], counts.numpy())
    z, direction = 0.5 * np.random.default_rng(2).normal(size=(2, 2, problems.mean.shape[1]))
    looked = problems._look(np.arange(2), z, np.arange(2))
    product = problems._product(looked, direction)
    # the sizes of tails are float32
    rounding = 1e-8 if name == "top" else 1e-10
    close = {"rtol": 100 * rounding, "atol": 100 * rounding}
    for k in range(2):

        def own(at, k=k):
            return loss(cells, counts[k], at, scales)

        at, along = torch.from_numpy(z[k]), torch.from_numpy(direction[k])
        assert looked[0][k] == pytest.approx(own(at).item(), rel=rounding)
        _, bent = torch.autograd.functional.hvp(own, at, along)
        expected = torch.autograd.functional.jacobian(own, at).numpy()
        np.testing.assert_allclose(looked[1][k], expected, **close)
        np.testing.assert_allclose(product[k], bent.numpy(), **close)


def test_each_fit_is_the_same_alone_and_beside_others():
    cells = cells_of("gaps")
    scales = [Scales(0, 0), Scales(0, 1), Scales(1, 1), Scales(4, 1, by_input=1.0)]
    counts = np.random.default_rng(0).exponential(size=(4, len(cells.labels)))
    together = make_problems(cells, scales, counts)
    numbers, scores = together.solve(np.zeros_like(together.mean))
    for k, one in enumerate(scales):
        alone = make_problems(cells, [one._replace(by_input=one.by_input or 1e-12)], counts[[k]])
        found, score = alone.solve(np.zeros_like(alone.mean))
        np.testing.assert_allclose(found[0], numbers[k], atol=1e-5)
        np.testing.assert_allclose(score[0], scores[k], atol=1e-5)


def test_draws_differ_in_scores_at_the_temperatures_of_the_fit_to_all():
    cells, scales = cells_of("gaps"), Scales(1.0, 1.0)
    one, many = fit_pool(cells, scales), fit_pool(cells, scales, 3)
    assert len(many.intercept) == 3
    assert many.intercept.std(0).min() > 0.001
    torch.testing.assert_close(many.temperature, one.temperature)
    torch.testing.assert_close(many.gate, one.gate)


def test_minima_of_curved_valleys_and_from_beside_a_saddle():
    """Rosenbrock's function; and x^2 y^2 - y^2 + y^4 + x^2, which bends down along y at 0."""

    def look(z, rows):
        x, y = z.T
        valley = rows == 0
        value = np.where(
            valley, (1 - x) ** 2 + 100 * (y - x * x) ** 2, x * x * (1 + y * y) - y * y + y**4
        )
        slope_x = np.where(valley, 2 * (x - 1) - 400 * x * (y - x * x), 2 * x * (1 + y * y))
        slope_y = np.where(valley, 200 * (y - x * x), 2 * x * x * y - 2 * y + 4 * y**3)
        xx = np.where(valley, 2 - 400 * (y - 3 * x * x), 2 * (1 + y * y))
        xy = np.where(valley, -400 * x, 4 * x * y)
        yy = np.where(valley, 200.0, 2 * x * x - 2 + 12 * y * y)
        return [value, np.stack([slope_x, slope_y], 1), xx, xy, yy]

    def product(looked, direction):
        (xx, xy, yy), (x, y) = looked[2:], direction.T
        return np.stack([xx * x + xy * y, xy * x + yy * y], 1)

    start = np.array([[-1.2, 1.0], [0.5, 1e-3]])
    found = minimise(look, product, start, 1e-8)
    np.testing.assert_allclose(found, [[1, 1], [0, math.sqrt(0.5)]], atol=1e-6)
    assert (start[0] == [-1.2, 1.0]).all()
