"""Runs of chains: reproducible, resumable to the same bytes, and not fooled at the start."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mtbkd.inference import modes as modes_module
from mtbkd.inference import run as run_module
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.modes import MapSettings, find_modes
from mtbkd.inference.run import SamplerSettings, sample
from mtbkd.inference.samples import load_samples, save_manifest
from mtbkd.prior.settings import Prior
from mtbkd.student.log_posterior import log_posterior
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.types import Batch, InputError
from mtbkd.weights.rules import uniform_weights

N_CHAINS = 2
SETTINGS = SamplerSettings("sghmc", burn_in=30, draws=25, thinning=7, batch_size=16)
"""Segments end at steps 100, 170 and 205; progress is told at 50, 100, 150, 200 and 205."""
ENGINES = pytest.mark.parametrize("engine", ["hmc", "sghmc", "sgld", "csghmc"])
STOCHASTIC = pytest.mark.parametrize("engine", ["sghmc", "sgld", "csghmc"])


def network(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width, following in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def training(n_examples=40, n_features=4, n_classes=3, n_teachers=2, seed=0) -> TrainingSet:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_examples, n_features, generator=generator)
    labels = torch.randint(n_classes, (n_examples,), generator=generator)
    labels[::3] = -1
    logits = 2 * torch.randn(n_teachers, n_examples, n_classes, generator=generator)
    mask = torch.ones(n_teachers, n_examples, dtype=torch.bool)
    mask[0, :5] = False
    return TrainingSet(features, labels, logits.log_softmax(-1), uniform_weights(mask))


@pytest.fixture(scope="module")
def student():
    return make_student(network(4, 5, 3))


@pytest.fixture(scope="module")
def modes(student):
    settings = MapSettings(epochs=5, batch_size=16)
    return find_modes(student, training(), Prior(4.0), settings, n_chains=N_CHAINS, seed=0)


def draw(student, modes, settings=SETTINGS, folder=None, progress=None, seed=0, data=None):
    data = training() if data is None else data
    return sample(
        student, data, Prior(4.0), settings, modes, seed=seed, folder=folder, progress=progress
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("draws-*")}


def joined(chains):
    return torch.cat(chains.samples.segments, dim=1)


@ENGINES
def test_same_seed_gives_the_same_bytes(student, modes, tmp_path, engine):
    settings = replace(SETTINGS, engine=engine)
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        draw(student, modes, settings, tmp_path / name, seed=seed)
    first, again, other = (contents(tmp_path / n) for n in ("first", "again", "other"))
    assert len(first) == 3
    assert first == again
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first)


def test_modes_are_reproducible_and_each_chains_own(student):
    settings = MapSettings(epochs=3, batch_size=16)
    find = lambda n, seed: find_modes(  # noqa: E731
        student, training(), Prior(4.0), settings, n_chains=n, seed=seed
    )
    three = find(3, 0)
    assert torch.equal(three, find(3, 0))
    torch.testing.assert_close(find(1, 0), three[:1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(three, find(3, 1), atol=0.1)
    assert not torch.allclose(three[0], three[1], atol=0.1)


def test_modes_are_higher_than_where_the_search_starts(student):
    data, prior = training(), Prior(4.0)
    generators = chain_generators(0, 0, N_CHAINS, torch.device("cpu"))
    start = student.initial_position(generators)
    batch = Minibatches(data, prior, generators)(40)
    axes = Batch(0, 0, 0, None)
    value = torch.vmap(log_posterior(student, 40), (0, axes))
    settings = MapSettings(epochs=300, batch_size=40)
    found = find_modes(student, data, prior, settings, n_chains=N_CHAINS, seed=0)
    assert (value(found, batch) > value(start, batch) + 0.5).all()
    slope = torch.func.grad(lambda z: value(z, batch).sum())(found)
    assert slope.abs().max() < 0.02


class Interrupted(Exception):
    """Stands for a kill."""


@ENGINES
@pytest.mark.parametrize("stops", [(50,), (100,), (150,), (205,), (50, 100, 150, 200)])
def test_interrupted_run_ends_in_the_same_bytes(student, modes, tmp_path, engine, stops):
    settings = replace(SETTINGS, engine=engine)
    undisturbed = draw(student, modes, settings, tmp_path / "whole")

    def stop_at(when):
        def progress(done, total):
            assert total == 205
            if done == when:
                raise Interrupted

        return progress

    for when in stops:
        with pytest.raises(Interrupted):
            draw(student, modes, settings, tmp_path / "parts", stop_at(when))
    resumed = draw(student, modes, settings, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert torch.equal(joined(resumed), joined(undisturbed))
    assert resumed.plan == undisturbed.plan
    assert resumed.statistics.keys() == undisturbed.statistics.keys()
    for name, value in undisturbed.statistics.items():
        assert torch.equal(resumed.statistics[name], value)


@pytest.mark.parametrize("which", [1, 2, 3])
def test_kill_between_segment_and_checkpoint_is_harmless(
    student, modes, tmp_path, monkeypatch, which
):
    draw(student, modes, folder=tmp_path / "whole")
    calls = []

    def save(*args):
        calls.append(args)
        if len(calls) == which:
            raise Interrupted
        original(*args)

    original = run_module.save
    monkeypatch.setattr(run_module, "save", save)
    with pytest.raises(Interrupted):
        draw(student, modes, folder=tmp_path / "parts")
    monkeypatch.undo()
    draw(student, modes, folder=tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_resumed_run_does_not_start_over(student, modes, tmp_path):
    draw(student, modes, folder=tmp_path)
    told = []
    draw(student, modes, folder=tmp_path, progress=lambda *at: told.append(at))
    assert told == []


def test_folder_changes_nothing(student, modes, tmp_path):
    on_disk, in_memory = draw(student, modes, folder=tmp_path), draw(student, modes)
    assert torch.equal(joined(on_disk), joined(in_memory))


@pytest.mark.parametrize(("draws", "segments"), [(1, [1]), (10, [10]), (25, [10, 10, 5])])
def test_draws_are_counted_for_each_chain(student, modes, draws, segments):
    chains = draw(student, modes, replace(SETTINGS, draws=draws, thinning=2))
    assert [tuple(s.shape) for s in chains.samples.segments] == [
        (N_CHAINS, size, student.n_parameters) for size in segments
    ]
    assert (chains.samples.n_chains, chains.samples.n_draws) == (N_CHAINS, draws)
    assert len(list(chains.samples)) == draws


def test_thinning_and_burn_in_drop_steps(student, modes):
    """A fixed step on all examples, so that nothing but noise is drawn on the way."""
    every = SamplerSettings(burn_in=5, draws=24, thinning=1, batch_size=40, step_size=0.01)
    path = joined(draw(student, modes, every))
    fourth = joined(draw(student, modes, replace(every, draws=6, thinning=4)))
    assert torch.equal(fourth, path[:, 3::4])
    later = joined(draw(student, modes, replace(every, burn_in=10, draws=19)))
    assert torch.equal(later, path[:, 5:])


def test_draws_are_in_natural_units(modes):
    """A step so small that the chain stays at its mode."""
    student = make_student(network(4, 5, 3), weight_scale=3.0)
    settings = SamplerSettings(burn_in=1, draws=1, thinning=1, step_size=1e-7, batch_size=40)
    drawn = joined(draw(student, modes, settings))[:, 0]
    torch.testing.assert_close(drawn, student.natural(modes), atol=1e-3, rtol=0)
    assert not torch.allclose(drawn, modes, atol=0.1)


def test_chain_is_the_same_alone_and_beside_others(student, modes):
    settings = replace(SETTINGS, draws=5, thinning=2)
    both, alone = draw(student, modes, settings), draw(student, modes[:1], settings)
    torch.testing.assert_close(joined(alone), joined(both)[:1], rtol=1e-3, atol=1e-4)


@STOCHASTIC
def test_step_size_given_is_kept_and_otherwise_adapted(student, modes, engine):
    settings = replace(SETTINGS, engine=engine, step_size=0.003, draws=2)
    fixed = draw(student, modes, settings)
    assert torch.equal(fixed.statistics["step_size"], torch.full((N_CHAINS,), 0.003))
    adapted = draw(student, modes, replace(settings, step_size=None))
    assert (adapted.statistics["step_size"] > 0).all()
    assert not torch.allclose(adapted.statistics["step_size"], fixed.statistics["step_size"])
    assert (adapted.statistics["curvature"] > 0).all()
    assert (adapted.statistics["gradient_noise"] > 0).all()
    assert ("kinetic_temperature" in fixed.statistics) == (engine != "sgld")


@STOCHASTIC
def test_step_size_falls_as_examples_are_added(student, modes, engine):
    """Four times the same examples: four times the curvature, on all of them at once."""
    data = training()
    more = TrainingSet(
        data.features.repeat(4, 1), data.labels.repeat(4), data.values.repeat(1, 4, 1),
        data.log_weights.repeat(1, 4),
    )  # fmt: skip
    settings = SamplerSettings(engine=engine, burn_in=8, draws=1, thinning=1, batch_size=160)
    few, many = (
        draw(student, modes, settings, data=d).statistics["step_size"] for d in (data, more)
    )
    expected = 4.0 if engine == "sgld" else 2.0
    assert torch.all((few / many - expected).abs() < 0.3 * expected)


def test_a_draw_on_disk_is_four_bytes_for_each_sampled_parameter(tmp_path):
    student = make_student(network(40, 50, 3))
    data = training(n_features=40)
    modes = torch.zeros(N_CHAINS, student.n_parameters)
    draw(student, modes, replace(SETTINGS, thinning=1), tmp_path, data=data)
    assert student.n_parameters > 2000
    size = sum(map(len, contents(tmp_path).values())) / (N_CHAINS * SETTINGS.draws)
    assert size == pytest.approx(4 * student.n_parameters, rel=0.05)


def test_draws_load_as_they_were_and_incomplete_ones_are_refused(student, modes, tmp_path):
    chains = draw(student, modes, folder=tmp_path)
    with pytest.raises(InputError, match="Expected posterior draws in .* they are incomplete"):
        load_samples(tmp_path)
    save_manifest(tmp_path, chains.samples, {"plan": {}}, [])
    loaded = load_samples(tmp_path)
    assert (loaded.names, loaded.shapes) == (chains.samples.names, chains.samples.shapes)
    assert all(map(torch.equal, loaded.segments, chains.samples.segments))
    (tmp_path / "draws-0001.safetensors").unlink()
    with pytest.raises(InputError, match="draws-0001.* but it is missing. Run the dist"):
        load_samples(tmp_path)


def test_global_generator_is_untouched(student, modes):
    before = torch.get_rng_state()
    find_modes(student, training(), Prior(), MapSettings(epochs=1), n_chains=1, seed=0)
    draw(student, modes, replace(SETTINGS, draws=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("settings", [MapSettings, SamplerSettings])
def test_settings_are_checked(settings):
    with pytest.raises(InputError, match="Expected batch_size above 0, but got 0. Raise it."):
        settings(batch_size=0)


def two_experts(n_examples=240, n_classes=6):
    """Each teacher is sure on its half of the classes, and unsure, and wrong, on the other."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n_examples) % n_classes
    centres = 3 * torch.eye(n_classes)
    features = centres[labels] + torch.randn(n_examples, n_classes, generator=generator)
    half = n_classes // 2
    logits = 0.3 * torch.randn(2, n_examples, n_classes, generator=generator)
    logits[0, :, half:] -= 6
    logits[1, :, :half] -= 6
    own = (labels >= half).long()
    logits[own, torch.arange(n_examples), labels] += 5
    mask = torch.ones(2, n_examples, dtype=torch.bool)
    known = torch.where(torch.arange(n_examples) % 10 == 0, labels, -1)
    data = TrainingSet(features, known, logits.log_softmax(-1), uniform_weights(mask))
    return data, labels


def test_warm_up_keeps_large_concentrations_from_locking_on_the_unsure_teacher(monkeypatch):
    data, labels = two_experts()
    student = make_student(network(6, 16, 6), weight_scale=3.0)
    settings = MapSettings(epochs=100, batch_size=64)

    def accuracy():
        modes = find_modes(student, data, Prior(20.0), settings, n_chains=2, seed=0)
        guesses = torch.stack([student.logits(z, data.features).argmax(-1) for z in modes])
        return (guesses == labels).float().mean(1)

    warmed = accuracy()
    monkeypatch.setattr(
        modes_module, "warmed_concentration", lambda _, concentration: concentration
    )
    cold = accuracy()
    assert (warmed > 0.9).all()
    assert (cold < 0.5).all()
