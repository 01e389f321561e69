"""Images that are mirrored and moved while a student learns, and count once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from own_data import call
from test_images import configure
from torch import nn

import mtbkd
from mtbkd.data import make_dataset
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.run import sample
from mtbkd.outputs.aligned import align, make_table
from mtbkd.prior.settings import Prior, PriorSettings
from mtbkd.student.augment import Augment, read_augment, shown
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.pixels import pixels_like
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import InputError

N, SIDE = 40, 8
BOTH = Augment(flip=True, crop=True)
MIRRORED = torch.tensor([0, 0, 1], dtype=torch.int16)


def images(n: int = N) -> torch.Tensor:
    return torch.randint(0, 256, (n, 2, SIDE, SIDE), generator=generator(0)).byte()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def student_of(network: nn.Module, pictures: torch.Tensor, augment: Augment | None = BOTH):
    return make_student(network, weight_scale=1.0, example=pictures[:2], augment=augment)


def linear(pictures: torch.Tensor) -> nn.Module:
    wide = pictures[0].numel()
    return nn.Sequential(pixels_like(pictures), nn.Flatten(), nn.Linear(wide, 2))


def small(pictures: torch.Tensor) -> nn.Module:
    """One convolution, whose start does not disturb the global random state."""
    with torch.random.fork_rng():
        layers = nn.Conv2d(pictures.shape[1], 4, 3, stride=2), nn.ReLU(), nn.Flatten()
        return nn.Sequential(pixels_like(pictures), *layers, nn.Linear(36, 2))


def training(pictures: torch.Tensor, augment: Augment | None = BOTH) -> TrainingSet:
    n = len(pictures)
    said = torch.rand(2, n, 2, generator=generator(1)).log_softmax(-1)
    labels = torch.arange(n) % 3 - 1
    weights = torch.full((2, n), np.log(0.5))
    return TrainingSet(pictures, labels, said, weights, augment=augment)


def test_a_view_moves_what_is_inside_and_mirrors_the_rest():
    image = images(1)[0].numpy()
    for down, right, mirrored in ((0, 0, 0), (1, -1, 0), (-1, 1, 1), (0, 0, 1)):
        view = torch.tensor([down, right, mirrored], dtype=torch.int16)
        found = shown(torch.from_numpy(image)[None], view[None])[0]
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        expected = padded[:, 1 + down :, 1 + right :][:, :SIDE, :SIDE]
        if mirrored:
            expected = expected[:, :, ::-1]
        np.testing.assert_array_equal(found.numpy(), expected)
        assert found.dtype == torch.uint8


def test_views_are_drawn_evenly_within_an_eighth_of_the_side():
    size = torch.zeros(2, 3, 24, 16)
    views = BOTH.draw(4000, size, generator(3))
    for column, values in ((0, range(-3, 4)), (1, range(-2, 3)), (2, range(2))):
        found, counts = views[:, column].unique(return_counts=True)
        assert found.tolist() == list(values)
        np.testing.assert_allclose(counts / 4000, 1 / len(values), atol=0.03)
    assert BOTH.draw(9, size, generator(3)).equal(BOTH.draw(9, size, generator(3)))
    assert not read_augment("flip").draw(9, size, generator(3))[:, :2].any()
    assert not read_augment("crop").draw(9, size, generator(3))[:, 2].any()
    assert read_augment("crop+flip") == BOTH


@pytest.mark.parametrize("build", [linear, small])
@pytest.mark.parametrize("prepared", [True, False])
def test_gradients_are_those_of_the_images_that_are_shown(build, prepared, monkeypatch):
    monkeypatch.setattr("mtbkd.training._PREPARED", 2**28 if prepared else 0)
    pictures, prior = images(), Prior(2.0)
    student, data = student_of(build(pictures), pictures), training(pictures)
    generators = chain_generators(0, 0, 2, torch.device("cpu"))
    position = student.initial_position(generators)
    gradient = posterior_gradient(student, N, prior)
    for size in (10, N):
        batch = Minibatches(data, prior, generators)(size).rows(slice(0, size))
        assert batch.views is not None
        assert batch.views.unique(dim=1).shape[1] > 5
        assert not batch.views[0].equal(batch.views[1])
        values, found = (part.clone() for part in gradient(position, batch))
        by_hand = batch._replace(inputs=shown(batch.inputs, batch.views), views=None)
        torch.testing.assert_close(gradient(position, by_hand), (values, found))
        clean = gradient(position, batch._replace(views=None))[1]
        assert not torch.allclose(clean, found, rtol=0.01)


def test_an_example_counts_once_however_it_is_shown():
    """The mean over draws is the gradient of the mean of both views, at the same N."""
    pictures, prior = images(), Prior(2.0)
    student = student_of(linear(pictures), pictures, Augment(flip=True, crop=False))
    generators = chain_generators(0, 0, 400, torch.device("cpu"))
    position = student.initial_position(generators[:1]).expand(400, -1)
    batch = Minibatches(training(pictures, student.augment), prior, generators)(N)
    gradient = posterior_gradient(student, N, prior)
    drawn = gradient(position, batch)[1].clone()
    views = torch.zeros(1, N, 3, dtype=torch.int16), MIRRORED.expand(1, N, 3)
    one = batch.rows(slice(0, N)).each(lambda part: part[:1])
    both = [gradient(position[:1], one._replace(views=v))[1].clone() for v in views]
    error = drawn.std(0) / 400**0.5
    far = ((drawn.mean(0) - torch.cat(both).mean(0)) / error.clamp_min(1e-7)).abs()
    assert float(far.max()) < 4.5
    assert float(((both[0] - both[1])[0] / error).abs().max()) > 20


def test_a_chain_is_the_same_alone_or_beside_others():
    pictures, prior = images(), Prior(2.0)
    for size in (10, N):
        every = chain_generators(5, 1, 3, torch.device("cpu"))
        beside = Minibatches(training(pictures), prior, every)(size).rows(slice(0, size))
        last = chain_generators(5, 1, 3, torch.device("cpu"))[2:]
        alone = Minibatches(training(pictures), prior, last)(size).rows(slice(0, size))
        assert alone.views.equal(beside.views[2:])
        assert alone.labels.equal(beside.labels[2:])


def test_over_all_images_the_noise_of_views_is_measured_and_hmc_refused():
    pictures = images()
    student = student_of(linear(pictures), pictures)
    modes = student.initial_position(chain_generators(0, 0, 2, torch.device("cpu")))
    for engine in ("auto", "sghmc"):
        settings = SamplerSettings(
            engine=engine, burn_in=20, draws=4, thinning=200, batch_size=None
        )
        drawn = sample(student, training(pictures), Prior(2.0), settings, modes, seed=0)
        assert (drawn.plan.engine, drawn.plan.batch_size) == ("sghmc", N)
        assert bool((drawn.statistics["gradient_noise"] > 0).all())
    clean = training(pictures, None)
    assert sample(student, clean, Prior(2.0), settings, modes, seed=0).plan.batch_size is None
    with pytest.raises(InputError, match="never the same twice, but got hmc"):
        sample(
            student, training(pictures), Prior(2.0), replace(settings, engine="hmc"), modes, seed=0
        )


def sides(n: int) -> tuple[torch.Tensor, np.ndarray]:
    """Two shapes that point to the right; mirrored, they are of the same class."""
    chance, label = np.random.default_rng(0), np.arange(n) % 2
    pixels = chance.integers(0, 60, (n, 1, SIDE, SIDE))
    pixels[:, :, :, 5:] += np.where(label, 120, 0)[:, None, None, None]
    pixels[:, :, 5:] += np.where(label, 0, 120)[:, None, None, None]
    return torch.from_numpy(pixels.astype(np.uint8)), label


SAMPLER = SamplerSettings("sghmc", burn_in=20, draws=30, thinning=2, batch_size=60)


def distilled(out=None, report=None, **settings):
    pictures, label = sides(60)
    data = make_dataset(pictures, classes=["tall", "wide"], labels=label)
    probs = np.where(np.arange(2) == label[:, None], 0.9, 0.1)
    teachers = align([make_table("t", probs, kind="probs", ids=data.ids, classes=data.classes)],
                     data.ids, data.classes)  # fmt: skip
    known = {
        "prior": PriorSettings(weights="uniform", power=1.0, discount=0.0),
        "modes": MapSettings(epochs=30, batch_size=20),
        "sampler": SAMPLER,
        "chains": 2,
        "augment": "flip+crop",
    }
    return mtbkd.distill(
        small(pictures), data, teachers, out=out, report=report, **known | settings
    )


def test_a_student_that_saw_mirrored_images_knows_them():
    pictures, label = sides(60)
    mirrored = pictures.flip(-1)
    seen, blind = distilled(), distilled(augment=None)
    wrong = {}
    for name, posterior in (("seen", seen), ("blind", blind)):
        said = posterior.predict(mirrored).probs
        wrong[name] = -np.log(said[np.arange(60), label]).mean()
    assert wrong["seen"] < 0.5 * wrong["blind"]
    clean = [p.predict(pictures).probs[np.arange(60), label].min() for p in (seen, blind)]
    assert min(clean) > 0.5


def test_the_same_seed_gives_the_same_bytes_also_where_a_run_was_killed(tmp_path):
    class Killed(Exception):
        pass

    before = torch.get_rng_state()
    calm = distilled()
    for stage, share in (("modes", 0.5), ("sampling", 0.8)):
        out = tmp_path / stage

        def report(told, done, total, stage=stage, share=share):
            if told == stage and done > share * total:
                raise Killed

        with pytest.raises(Killed):
            distilled(out, report)
        assert (out / "samples" / "checkpoint.safetensors").exists() == (stage == "sampling")
        again = distilled(out)
        for one, other in zip(again.samples.segments, calm.samples.segments, strict=True):
            assert one.equal(other)
    assert not calm.samples.segments[0].equal(distilled(augment="flip").samples.segments[0])
    assert before.equal(torch.get_rng_state())


def test_what_has_no_images_at_every_step_is_refused():
    pictures = images()
    with pytest.raises(InputError, match=r"images of shape \(example, channel, height, width\)"):
        make_student(nn.Linear(4, 2), example=torch.zeros(2, 4), augment=BOTH)
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(InputError, match="features are computed once for each image"):
        make_student(network, sampled="3.*", example=pictures[:2].float(), augment=BOTH)
    with pytest.raises(InputError, match="flip or crop, or both joined by"):
        distilled(augment="flip,rotate")
    with pytest.raises(InputError, match="never the same twice, but got hmc"):
        distilled(sampler=SamplerSettings("hmc"))


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"augment": "spin"}, "`student.augment`: Expected augment as flip or crop"),
        ({"kind": "mlp", "augment": "flip"}, "kind cnn or a network of your own, but got 'mlp'"),
        ({"encoder": "x/y", "augment": "flip"}, "a frozen model computes once for each image"),
    ],
)
def test_a_configuration_tells_what_is_not_augmented(
    student, message, tmp_path, monkeypatch, capsys
):
    path = configure(tmp_path, student=student)
    code, _, error = call(monkeypatch, capsys, "run", path, "--out", tmp_path / "r")
    assert code == 2
    assert message in error
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_run_augments_its_student_and_its_baselines(tmp_path, monkeypatch, capsys):
    told = {}
    for augment in (None, "flip+crop"):
        path = configure(tmp_path, student={"augment": augment}, baselines="fast")
        out = tmp_path / str(augment)
        code, _, error = call(monkeypatch, capsys, "run", path, "--out", out)
        assert code == 0, error
        told[augment] = [p.read_bytes() for p in sorted((out / "baselines").glob("*.safetensors"))]
        told[augment].append((out / "modes.safetensors").read_bytes())
        assert yaml.safe_load((out / "config.yaml").read_text())["student"]["augment"] == augment
    assert len(told[None]) == len(told["flip+crop"]) > 2
    for clean, other in zip(*told.values(), strict=True):
        assert clean != other
