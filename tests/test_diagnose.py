"""A run beside a long reference: verdicts, refusals, and what a kill leaves."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sealing import seal_again

from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.folder import read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.report import ReferenceData, draw_reference
from mtbkd.app.run import commands as run
from mtbkd.app.run import diagnose, stages
from mtbkd.files import save_tensors
from mtbkd.inference.diagnostics import convergence
from mtbkd.inference.run import Chains
from mtbkd.inference.samples import PosteriorSamples, load_samples, segment_path
from mtbkd.metrics import agreement, total_variation
from mtbkd.predictive import draw_probs

LINEAR = [
    "student.hidden=[]",
    "student.weight_scale=1",
    "prior.power=4",
    "map.epochs=3",
    "sampler.engine=hmc",
    "sampler.burn_in=100",
    "sampler.draws=100",
    "sampler.thinning=10",
    "chains=4",
]
FACTOR, SHORT = 4.0, 0.05
JSON_KEYS = {
    *("verdict", "converged", "agreement", "total_variation"),
    *("halves_agreement", "halves_total_variation", "modes_agreement", "modes_total_variation"),
    *("rhat_99", "rhat_median", "ess", "ess_median", "n_functions"),
    *("reference", "factor", "seed", "steps", "run_engine", "run_steps", "cpu_seconds"),
}


@pytest.fixture(scope="module", autouse=True)
def _few_examples():
    """40 training examples and 100 test images, on which hmc converges in seconds."""
    load = stages.load

    def few(*arguments):
        task = load(*arguments)
        known = torch.nonzero(task.train.labels >= 0)[:20, 0].tolist()
        unknown = torch.nonzero(task.train.labels < 0)[:20, 0].tolist()
        return replace(
            task, train=task.train.subset(known + unknown), test=task.test.subset(range(100))
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "load", few)
        yield


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A distilled run of a linear student, not diagnosed."""
    out = tmp_path_factory.mktemp("fresh") / "run"
    run.distill(build_config(find_recipe("digits").defaults, LINEAR), out)
    return out


@pytest.fixture(scope="module")
def judged(fresh, tmp_path_factory) -> Path:
    """The same with its reference."""
    out = Path(shutil.copytree(fresh, tmp_path_factory.mktemp("judged") / "run"))
    diagnose.diagnose_run(out, factor=FACTOR)
    return out


def copied(source: Path, tmp_path: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(source, tmp_path / name))


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command line here; returns exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["mtbkd", "diagnose", *map(str, arguments)])
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr()
    return int(str(code or 0)), found.out, found.err


def strict(text: str) -> dict[str, object]:
    """Parse JSON as others do, without NaN and infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def student_and_modes(out: Path):
    config = read_run(out)
    recipe = find_recipe(config.recipe)
    task = stages.load(recipe, config, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.test.classes, out)
    return posterior.student, posterior.modes


def overwrite_draws(out: Path, draw) -> None:
    """Replace each stored segment by ``draw(segment)``."""
    for index, segment in enumerate(load_samples(out / "samples").segments):
        save_tensors(segment_path(out / "samples", index), {"draws": draw(segment)})
    seal_again(out)


def words(out: Path) -> list[str]:
    """The lines of ``diagnose.json`` that a kill must not change."""
    lines = (out / "diagnose.json").read_text().splitlines()
    return [line for line in lines if "cpu_seconds" not in line]


# metrics and convergence


def test_metrics_by_hand():
    one = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
    two = np.array([[0.5, 0.2, 0.3], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]])
    assert agreement(one, two) == 0.5
    assert agreement(one[:1], two[:1]) == 1
    np.testing.assert_allclose(total_variation(one, two), [0.2, 0.4, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(total_variation(two, one), total_variation(one, two))
    assert agreement(one, one) == 1


def test_independent_chains_converge_and_standing_ones_do_not():
    values = np.random.default_rng(0).normal(size=(4, 250, 5))
    values[..., 3] *= 1e-6
    rhat, ess = convergence(values, 1e-4)
    assert rhat.shape == ess.shape == (4,)
    assert (rhat < 1.02).all()
    assert (ess > 600).all()
    shifted = values + np.arange(4)[:, None, None]
    assert (convergence(shifted, 1e-4)[0] > 1.3).all()
    still = np.broadcast_to(np.array([0.1, 0.2, 0.3, 0.4])[:, None, None], (4, 20, 1))
    assert convergence(still, 1e-4)[0] == [1000.0]
    diverged = values.copy()
    diverged[0, 7, 0], diverged[1, 8, 1] = np.nan, np.inf
    rhat, ess = convergence(diverged, 1e-4)
    assert rhat[:2].tolist() == [1000.0, 1000.0]
    assert ess[:2].tolist() == [0.0, 0.0]
    assert (rhat[2:] < 1.02).all()
    assert [len(part) for part in convergence(values[:, :3], 1e-4)] == [0, 0]
    assert [len(part) for part in convergence(values * 1e-6, 1e-4)] == [0, 0]


# the verdict


def seen(probs, rhat=1.0, ess=1000.0):
    return diagnose._Seen(
        np.stack([probs, probs]),
        np.ones(3),
        np.broadcast_to(rhat, 1000),
        np.broadcast_to(ess, 1000),
    )


def pair(flipped: int, apart: float):
    """100 predictions of two classes, of which some differ in class; all are so far apart."""
    reference = np.tile([0.8, 0.2], (100, 1))
    reference[:flipped] = [0.5 + apart / 2, 0.5 - apart / 2]
    own = reference + np.array([-apart, apart])
    return own, reference


@pytest.mark.parametrize(
    ("flipped", "apart", "words"),
    [
        (0, 0.0, "agrees with"),
        (1, 0.0149, "agrees with"),
        (2, 0.0149, "agrees roughly with"),
        (1, 0.0151, "agrees roughly with"),
        (3, 0.0299, "agrees roughly with"),
        (4, 0.0299, "differs from"),
        (4, 0.001, "differs from"),
        (0, 0.0301, "differs from"),
    ],
)
def test_the_verdict_at_the_edges_of_its_table(flipped, apart, words):
    own, reference = pair(flipped, apart)
    found = diagnose._judge(own, own, seen(reference))
    assert found["verdict"].startswith(f"The run {words} the converged posterior")
    assert found["agreement"] == pytest.approx(1 - flipped / 100)
    assert found["total_variation"] == pytest.approx(apart)
    assert found["modes_total_variation"] == found["total_variation"]
    assert (found["halves_agreement"], found["halves_total_variation"]) == (1, 0)


def some(value: float, n: int, others: float) -> np.ndarray:
    return np.where(np.arange(1000) < n, value, others)


@pytest.mark.parametrize(
    ("rhat", "ess", "converged"),
    [
        (1.01, 400.0, True),
        (1.0101, 400.0, False),
        (1.01, 399.9, False),
        (some(9.0, 9, 1.0), 1000.0, True),
        (some(9.0, 11, 1.0), 1000.0, False),
        (1.0, some(5.0, 49, 1000.0), True),
        (1.0, some(5.0, 51, 1000.0), False),
    ],
)
def test_the_reference_at_the_edges_of_convergence(rhat, ess, converged):
    own, reference = pair(0, 0.0)
    found = diagnose._judge(own, own, seen(reference, rhat, ess))
    assert found["converged"] is converged
    assert (found["agreement"] is not None) is converged
    assert found["verdict"].startswith("No verdict") is not converged


def seen_halves(halves) -> diagnose._Seen:
    return diagnose._Seen(halves, np.ones(3), np.ones(2), np.full(2, 1e3))


def test_a_run_is_compared_with_the_whole_reference_and_its_halves_with_each_other():
    halves = np.array([[[0.9, 0.1]], [[0.4, 0.6]]])
    own, modes = np.array([[0.6, 0.4]]), np.array([[0.2, 0.8]])
    found = diagnose._judge(own, modes, seen_halves(halves))
    assert found["total_variation"] == pytest.approx(0.05)
    assert found["halves_total_variation"] == pytest.approx(0.5)
    assert found["modes_total_variation"] == pytest.approx(0.45)
    assert (found["agreement"], found["halves_agreement"], found["modes_agreement"]) == (1, 0, 0)


# a run and its reference


def test_halves_are_chains_and_the_whole_is_all_draws(fresh):
    student, _ = student_and_modes(fresh)
    samples = load_samples(fresh / "samples")
    inputs = torch.rand(7, 64, generator=torch.Generator().manual_seed(0))
    probs = torch.cat([p.double() for p in draw_probs(student, samples, inputs)], 2).numpy()
    found = diagnose._look(student, samples, inputs)
    assert probs.shape == (4, 100, 7, 10)
    np.testing.assert_allclose(found.halves[0], probs[:2].mean((0, 1)))
    np.testing.assert_allclose(found.halves[1], probs[2:].mean((0, 1)))
    np.testing.assert_allclose(found.probs, probs.mean((0, 1)))


def test_a_long_run_agrees_and_its_modes_do_not(judged):
    found = strict((judged / "diagnose.json").read_text())
    assert found["converged"] is True
    assert str(found["verdict"]).startswith("The run agrees"), found
    assert found["modes_total_variation"] > 10 * found["total_variation"]  # type: ignore[operator]
    assert found["steps"] == FACTOR * 1100
    assert not list(judged.glob(".*partial"))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("broken", ["modes", "prior", "one chain"])
def test_a_broken_sampler_is_found(broken, judged, tmp_path):
    out = copied(judged, tmp_path)
    student, modes = student_and_modes(out)
    generator = torch.Generator().manual_seed(0)
    draws = {
        "modes": lambda old: student.natural(modes)[:, None].expand_as(old),
        "prior": lambda old: student.natural(torch.randn(old.shape, generator=generator)),
        "one chain": lambda old: old[:1, :1].expand_as(old),
    }
    overwrite_draws(out, draws[broken])
    found = diagnose.diagnose_run(out, factor=FACTOR)
    assert found["converged"]
    assert found["verdict"].startswith("The run differs from the converged posterior")
    if broken == "modes":
        assert found["total_variation"] == pytest.approx(found["modes_total_variation"], abs=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_json_is_one_object_and_the_file_holds_the_same(judged, tmp_path, monkeypatch, capsys):
    out = copied(judged, tmp_path)
    code, text, errors = call(monkeypatch, capsys, out, "--factor", FACTOR, "--json")
    assert (code, errors) == (0, "")
    found = strict(text)
    assert found == strict((out / "diagnose.json").read_text())
    assert found == strict((judged / "diagnose.json").read_text())
    assert JSON_KEYS <= set(found)
    code, text, _ = call(monkeypatch, capsys, out, "--factor", FACTOR)
    assert code == 0
    assert "hmc, 1,100 steps, against hmc, 4,400 steps" in text
    assert f"{found['total_variation']:.4f}" in text
    assert "R-hat" in text
    assert str(found["verdict"]) in text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_chains_in_different_places_give_no_verdict(noise, fresh, tmp_path, monkeypatch, capsys):
    out = copied(fresh, tmp_path)
    sample = diagnose.sample

    def stuck(student, data, prior, settings, modes, **options) -> Chains:
        chains = sample(
            student, data, prior, replace(settings, burn_in=1, draws=2, thinning=1), modes, seed=0
        )
        places = student.natural(2 * modes)[:, None].repeat(1, 20, 1)
        generator = torch.Generator().manual_seed(0)
        places += noise * torch.randn(places.shape, generator=generator)
        samples = chains.samples
        return chains._replace(samples=PosteriorSamples((places,), samples.names, samples.shapes))

    monkeypatch.setattr(diagnose, "sample", stuck)
    code, text, errors = call(monkeypatch, capsys, out, "--json")
    assert (code, errors) == (3, "")
    found = strict(text)
    assert found["converged"] is False
    for key in ("agreement", "total_variation", "modes_agreement", "modes_total_variation"):
        assert found[key] is None
    assert f"R-hat {found['rhat_99']:.3f}" in str(found["verdict"])
    code, text, _ = call(monkeypatch, capsys, out)
    assert code == 3
    assert "No verdict: the reference has not converged" in text
    assert "agrees" not in text


@pytest.mark.slow
def test_killed_and_resumed_ends_in_the_same_bytes(fresh, tmp_path):
    calm, killed = copied(fresh, tmp_path, "calm"), copied(fresh, tmp_path, "killed")

    def at(where: str, when: int):
        def report(stage: str, done: int, total: int) -> None:
            if stage == where and done >= when:
                raise KeyboardInterrupt

        return report

    diagnose.diagnose_run(calm, factor=1)
    for moment in (("modes", 1), ("reference", 50), ("reference", 550), ("reference", 1000)):
        with pytest.raises(KeyboardInterrupt):
            diagnose.diagnose_run(killed, factor=1, report=at(*moment))
        assert not (killed / "diagnose.json").exists()
    diagnose.diagnose_run(killed, factor=1)

    def contents(out: Path) -> dict[str, bytes]:
        files = [p for p in (out / "reference").rglob("*") if p.is_file()]
        files.remove(out / "reference" / "hmc-1-1000" / "cost.json")
        return {str(p.relative_to(out)): p.read_bytes() for p in (*files, out / "diagnose.svg")}

    assert len(contents(calm)) > 30
    assert contents(calm) == contents(killed)
    assert words(calm) == words(killed)


@pytest.mark.slow
def test_another_factor_or_seed_is_another_reference(fresh, tmp_path):
    out = copied(fresh, tmp_path)
    steps = {}
    for factor, seed in ((SHORT, None), (SHORT, 7), (0.7, 7), (0.70000001, 7)):
        steps[factor] = diagnose.diagnose_run(out, factor=factor, seed=seed)["steps"]
    names = ("hmc-0.05-1000", "hmc-0.05-7", "hmc-0.7-7", "hmc-0.70000001-7")
    assert {p.name for p in (out / "reference").iterdir()} == set(names)
    draws = [segment_path(out / "reference" / n / "samples", 0).read_bytes() for n in names]
    assert len(set(draws[:3])) == 3
    assert steps == {SHORT: 55, 0.7: 770, 0.70000001: 771}
    assert len(list((out / "reference" / "hmc-0.7-7" / "samples").glob("draws-*"))) <= 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "nuts"], "Expected one of the engines hmc, sghmc, sgld, csghmc as"),
        (["--reference", "laplace"], "but got 'laplace'"),
        (["--reference", "ensemble"], "but got 'ensemble'"),
        (["--factor", "0"], "Expected factor above 0, but got 0.0"),
        (["--factor", "-2"], "Expected factor above 0, but got -2.0"),
        (["--factor", "nan"], "Expected factor above 0, but got nan"),
        (["--factor", "inf"], "Expected factor of at most 10,000, but got inf"),
        (["--seed", "-1"], "Expected seed from 0 to 2147483647, but got -1"),
        (["--seed", "0"], "Expected another seed than the run's, but got 0"),
    ],
)
def test_a_mistake_is_told_in_one_line(options, message, fresh, monkeypatch, capsys):
    code, text, errors = call(monkeypatch, capsys, fresh, *options)
    assert (code, text) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (fresh / "reference").exists()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("", "Expected a run directory at"),
        ("config.yaml", "Expected a run directory at"),
        ("samples/manifest.json", "samples/manifest.json is missing. Finish it with `mtbkd run"),
        ("teachers/costs.json", "teachers/costs.json is missing"),
    ],
)
def test_what_is_no_finished_run_is_refused(gone, message, fresh, tmp_path, monkeypatch, capsys):
    out = tmp_path / "nowhere"
    if gone:
        out = copied(fresh, tmp_path)
        (out / gone).unlink()
    code, text, errors = call(monkeypatch, capsys, out)
    assert (code, text) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


class FakeStudent:
    """Two logits: the parameter times the input, and 0."""

    prior_mean = torch.zeros(1)
    temperature = 1.0

    def features(self, inputs: torch.Tensor, first: int = 0) -> torch.Tensor:
        del first
        return inputs

    def logits_at(self, parameters: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.logits_each(parameters[None], features)[0]

    def logits_each(self, parameters: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        first = parameters[:, None] * features
        return torch.cat([first, torch.zeros_like(first)], 2)


def test_the_distance_of_the_halves_runs_over_draws_in_any_number_of_batches():
    draws = torch.zeros(4, 3, 1)
    draws[2:, 0], draws[2:, 2] = 4.0, -4.0
    samples = PosteriorSamples((draws[:, :2], draws[:, 2:]), ("w",), ((1,),))
    inputs = torch.ones(5000, 1)  # more than one batch
    found = diagnose._look(FakeStudent(), samples, inputs)  # type: ignore[arg-type]
    first = 1 / (1 + np.exp(-4)) - 0.5
    np.testing.assert_allclose(found.running, [first, first / 2, 0], atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sampler_that_diverged_is_told(value, judged, tmp_path, monkeypatch, capsys):
    out = copied(judged, tmp_path)
    overwrite_draws(out, lambda old: torch.full_like(old, value))
    code, text, errors = call(monkeypatch, capsys, out, "--factor", FACTOR)
    assert (code, text) == (2, "")
    assert "Expected finite draws in" in errors
    assert len(errors.splitlines()) == 1
    out = copied(judged, tmp_path, "reference")
    stored = out / "reference" / f"hmc-{FACTOR:g}-1000" / "samples"
    some = segment_path(stored, 0)
    draws = load_file(str(some))["draws"]
    draws[3, 2] = value
    save_tensors(some, {"draws": draws})
    seal_again(out)
    code, text, errors = call(monkeypatch, capsys, out, "--factor", FACTOR, "--json")
    assert (code, text) == (2, "")
    assert f"Expected finite draws in {stored}, but its sampler diverged" in errors
    assert len(errors.splitlines()) == 1


# the figure


def test_the_figure_has_plain_numbers_whatever_the_chains_did():
    own, reference = pair(1, 0.01)
    halves = np.stack([own, reference])
    for running, rhat in (
        (np.array([0.1, 0.0]), np.array([1.0, 1.02, 1000.0])),
        (np.array([np.nan]), np.empty(0)),
    ):
        data = ReferenceData("In words.", own, reference, halves, running, rhat, 1.01)
        drawing = draw_reference(data)
        assert drawing == draw_reference(data)
        assert "In words." in drawing
        assert "mathdefault" not in drawing
        assert ">0.001<" in drawing
