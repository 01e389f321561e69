"""What is shipped answers as the run does, tells what it is, and refuses to be tampered with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from own_data import call, points, write_config, write_examples, write_table
from torch import nn

from mtbkd.app.export.export import Wanted, export_run
from mtbkd.app.export.flags import names_of
from mtbkd.app.export.graph import Graph, Parts, quantised, to_onnx
from mtbkd.app.export.loading import load_exported, load_weights
from mtbkd.app.recipes.base import Before, mlp
from mtbkd.data import make_dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import find_causes, make_background
from mtbkd.explain.outside import see
from mtbkd.files import load_tensors
from mtbkd.inference.engines import Plan
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation import OUTCOMES
from mtbkd.observation.units import Units
from mtbkd.outputs.aligned import align
from mtbkd.outputs.table import make_table
from mtbkd.prior.mixture import Prior
from mtbkd.student.convolutional import convolutional
from mtbkd.student.student import make_student
from mtbkd.types import InputError
from mtbkd.weights.rules import Weighting

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

N, CLOSE = 300, 1e-5
FIELDS = (
    "probs", "mean", "total", "aleatoric", "epistemic", "lower", "upper", "second",
    "mean_lower", "mean_upper",
)  # fmt: skip
CAUSES = {"dissent": "dissent", "pool": "pool", "reliable": "reliable", "set": "sets"}


def student_of(kind):
    """A family, a network, and what it reads."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, 4, generator=generator)
    if kind == "pictures":
        x = torch.randint(256, (N, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return "classification", convolutional(x, 3), x
    if kind == "frozen":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return "classification", nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *mlp([6, 3])), x
    n = 3 * OUTCOMES[kind].n_outputs
    return kind, mlp([4, 5, n]), x


def parts_of(kind, *, point="mean", half=False) -> tuple[Parts, torch.Tensor]:
    """A student whose draws are drawn by chance, with teachers and held-out answers by chance."""
    family, network, x = student_of(kind)
    sampled = "2.*" if kind == "frozen" else "*"
    student = replace(make_student(network, sampled=sampled, example=x[:2]), temperature=1.3)
    generator = torch.Generator().manual_seed(1)
    draws = student.natural(torch.randn(6, 4, student.n_parameters, generator=generator))
    samples = PosteriorSamples((draws,), student.names, tuple(map(tuple, student.shapes)))
    names = ("a", "b", "c")
    units = Units(torch.tensor([5.0, 0, -1]), torch.tensor([2.0, 1, 0.1]), torch.zeros(2, 3))
    posterior = Posterior(
        student=student,
        samples=samples,
        classes=names,
        weighting=Weighting("uniform"),
        prior=Prior(1.0),
        modes=draws[:, 0],
        plan=Plan("sghmc", "", 1, 1, 1, None),
        statistics={},
        family=family,
        units=units if OUTCOMES[family].numeric else None,
    )
    chance = np.random.default_rng(2)
    if family == "classification":
        labels, said = chance.integers(3, size=N), chance.dirichlet(np.ones(3), size=(2, N))
    elif family == "multilabel":
        labels, said = chance.integers(2, size=(N, 3)), chance.random((2, N, 3))
    else:
        labels, said = chance.normal(size=(N, 3)), chance.normal(size=(2, N, 3))
    data = make_dataset(x, labels=labels, classes=names, family=family)
    told = "mean" if OUTCOMES[family].numeric else "probs"
    tables = [
        make_table(f"t{k}", said[k], kind=told, ids=data.ids, classes=names, family=family)
        for k in range(2)
    ]
    teachers = align(tables, data.ids, names)
    split = data.subset(range(200)), data.subset(range(100, 300))
    background = make_background(
        posterior, *split, teachers, answers=posterior.predict(split[1].inputs), level=0.8, seed=0
    )
    before = Before("x") if kind == "pictures" else Before("x", scale=torch.full((4,), 0.5))
    every = replace(posterior, student=replace(student, frozen=None))
    parts = Parts(posterior, every, background, before, 0.8, point, half)
    return parts, before.undone(torch.cat([x[:50], x.roll(1, -1)[:50]]))


def asked(parts, inputs, model=None) -> dict[str, np.ndarray]:
    """What onnxruntime answers, in batches of several sizes."""
    graph = Graph(parts, inputs[:3]).eval()
    model = model or to_onnx(graph, inputs[:3], graph.names).model_proto
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    each = [session.run(None, {"inputs": p.numpy()}) for p in inputs.split([1, 7, 92])]
    return {n: np.concatenate(c) for n, *c in zip(graph.names, *each, strict=True)}


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("classification", "mean"),
        pytest.param("classification", "mode", marks=pytest.mark.slow),
        pytest.param("multilabel", "mean", marks=pytest.mark.slow),
        pytest.param("regression", "mean", marks=pytest.mark.slow),
        pytest.param("frozen", "mean", marks=pytest.mark.slow),
        pytest.param("pictures", "mean", marks=pytest.mark.slow),
    ],
)
def test_the_graph_answers_as_the_posterior_does(kind, point):
    parts, inputs = parts_of(kind, point=point)
    found = asked(parts, inputs)
    posterior, read = parts.posterior, parts.before(inputs)
    answer = posterior.predict(read, level=0.8, point=point)
    unit = 1.0 if posterior.units is None else posterior.units.scale.double().numpy()
    compared = [name for name in FIELDS if hasattr(answer, name)]
    assert len(compared) >= 6
    for name in compared:
        power = 2 if name in ("total", "aleatoric", "epistemic") else 1
        assert np.abs(found[name] - getattr(answer, name)).max() <= CLOSE * np.max(unit) ** power
    seen = see(parts.every, posterior.student.features(read))
    causes = find_causes(parts.background, seen, answer)
    np.testing.assert_allclose(found["outside_scores"], causes.scores, rtol=2e-3, atol=1e-4)
    assert np.abs(found["outside"] - causes.outside).max() <= 0.05
    same = np.array(names_of(found["flag"])) == np.array(causes.flags)
    assert same.mean() >= 0.97
    for name, attribute in CAUSES.items():
        wanted = getattr(causes, attribute)
        assert (name in found) == (wanted is not None and posterior.units is None)
        if name in found:
            # rounding decides which of two training examples that are as much alike counts
            assert np.mean(np.abs(found[name] * 1.0 - wanted) > 1e-3) <= 0.08
    if causes.labels is not None:
        assert (found["labels"] == causes.labels).all()
    reference = seen.hidden, parts.background.reference.hidden.float()
    wanted = torch.cdist(*reference).topk(10, largest=False).values.numpy()
    # squares: near 0 their roots are rounding's
    np.testing.assert_allclose(found["distances"] ** 2, wanted**2, rtol=2e-3, atol=1e-2)
    near = torch.cdist(*reference).gather(1, torch.from_numpy(found["nearest"])).numpy()
    np.testing.assert_allclose(near**2, found["distances"] ** 2, rtol=2e-3, atol=1e-2)


@pytest.mark.slow
def test_half_precision_and_whole_numbers_lose_little():
    parts, inputs = parts_of("classification")
    exact = parts.posterior.predict(parts.before(inputs), level=0.8).probs
    half = asked(replace(parts, half=True), inputs)["probs"]
    assert 0 < np.abs(half - exact).max() <= 2e-3
    graph = Graph(parts, inputs[:3]).eval()
    small = quantised(to_onnx(graph, inputs[:3], graph.names).model_proto)
    assert any(node.op_type == "MatMulInteger" for node in small.graph.node)
    assert 1e-5 < np.abs(asked(parts, inputs, small)["probs"] - exact).max() <= 0.05


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one's own rows, and its folder."""
    folder = tmp_path_factory.mktemp("own")
    write_examples(folder)
    write_table(folder)
    write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    with pytest.MonkeyPatch.context() as patch:
        from mtbkd.app import cli

        patch.chdir(folder)
        patch.setattr("sys.argv", ["mtbkd", "run", "my.yaml", "--out", "run"])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    export_run(folder / "run", folder / "shipped")
    return folder


def test_it_reads_raw_rows_and_is_checked_against_the_run(run):
    exported = load_exported(run / "shipped")
    told = exported.config
    assert told["inputs"]["what"] == "the columns x1, x2"
    assert told["checked"]["largest_difference"] <= CLOSE
    assert told["checked"]["nll"] == pytest.approx(told["checked"]["nll_of_the_run"], abs=1e-5)
    found = exported.predict([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    taken = load_weights(run / "shipped", mlp([2, 4, 3]))
    answer = taken.predict(torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
    assert np.abs(found["probs"] - answer.probs).max() <= CLOSE


def test_training_examples_are_shipped_with_what_was_said_of_them(run):
    exported = load_exported(run / "shipped")
    tensors = load_tensors(run / "shipped" / "examples.safetensors")
    names = json.loads((run / "shipped" / "examples.json").read_text())
    nearest = exported.predict(tensors["inputs"])["nearest"][:, 0]
    assert (nearest == np.arange(len(names["ids"]))).mean() >= 0.95  # each is its own nearest
    x, _ = points()
    told = dict(
        zip(*np.loadtxt(run / "old.csv", str, delimiter=",", skiprows=1).T[[0, 1]], strict=True)
    )
    for i, name in enumerate(names["ids"]):
        np.testing.assert_allclose(tensors["inputs"][i], x[int(name[1:])].round(3), atol=1e-5)
        assert float(tensors["said"][0, i, 0]) == pytest.approx(float(told[name]), abs=1e-4)


def test_the_card_says_who_taught_it_and_how_good_it_is(run):
    text = (run / "shipped" / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    results = head["model-index"][0]["results"][0]["metrics"]
    nll = next(each["value"] for each in results if each["type"] == "nll")
    assert nll == pytest.approx(metrics["student"]["nll"], abs=1e-4)
    assert head["library_name"] == "mtbkd"
    for said in ("1 teachers (old)", "a, b, c", "Nobody has stated a licence", "when not to trust"):
        assert said in text


@pytest.mark.parametrize(
    "name",
    [
        "model.onnx",
        "model.safetensors",
        "config.json",
        "README.md",
        "examples.json",
        "examples.safetensors",
        "manifest.json",
    ],  # fmt: skip
)
def test_a_file_that_was_changed_is_refused_by_name(name, run):
    path = run / "shipped" / name
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(InputError, match=name):
            load_exported(run / "shipped")
        path.unlink()
        with pytest.raises(InputError, match=f"{name}.* it is missing"):
            load_exported(run / "shipped")
    finally:
        path.write_bytes(data)
    load_exported(run / "shipped")


def test_mistakes_are_told(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    code, _, said = call(
        monkeypatch, capsys, "export", "run", "--out", "shipped", "--half", "--int8"
    )
    assert code == 2
    assert "Expected a new folder, but shipped exists" in said
    assert "Expected --half or --int8, but got both" in said
    with pytest.raises(InputError, match="Expected the network that was exported"):
        load_weights("shipped", mlp([2, 5, 3]))
    with pytest.raises(InputError, match=r"shape \(example, 2\), the columns x1, x2, but got"):
        load_exported("shipped").predict([[1.0]])
    run_file = run / "run" / "background.safetensors"
    data = run_file.read_bytes()
    run_file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, _, said = call(monkeypatch, capsys, "export", "run", "--out", "other")
    run_file.write_bytes(data)
    assert code == 2
    assert "background.safetensors" in said
    assert not (run / "other").exists()


def test_nothing_is_left_of_an_export_that_fails(run, monkeypatch):
    def fails(*_):
        raise InputError("no")

    monkeypatch.setattr("mtbkd.app.export.export.card", fails)
    before = sorted(run.iterdir())
    with pytest.raises(InputError, match="no"):
        export_run(run / "run", run / "other", Wanted(draws=3))
    assert sorted(run.iterdir()) == before
