"""Data sets that stay in files give what those in memory give, in bounded memory."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mtbkd.data import make_dataset
from mtbkd.distillation.choose import choose_units, choose_weighting
from mtbkd.distillation.distill import distill
from mtbkd.distillation.evidence import disagreement_evidence
from mtbkd.files import hash_tensor, save_rows
from mtbkd.inference import batches as batches_module
from mtbkd.inference.batches import Minibatches, in_parts
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings, find_modes
from mtbkd.inference.run import sample
from mtbkd.outputs.aligned import align, make_table
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.prior.mixture import Strength
from mtbkd.prior.settings import Prior, PriorSettings
from mtbkd.student.curvature import precision
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import make_student
from mtbkd.training import cached_features, training_set

N, INPUTS, CHAINS = 150, 5, 2
IDS = tuple(f"x{i}" for i in range(N))
CLASSES = tuple(f"class {c}" for c in range(6))
FAMILIES = {
    "classes": "classification",
    "gaps": "classification",
    "top": "classification",
    "labels": "multilabel",
    "numbers": "regression",
}
PRIOR = Prior(3.0, 1.5, Strength(2.0))
CASES = pytest.mark.parametrize("case", FAMILIES)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@cache
def material(case: str):
    """A data set, a third of it labelled, and three teachers, one silent on some rows."""
    random = np.random.default_rng(3)
    family = FAMILIES[case]
    inputs = random.normal(size=(N, INPUTS)).astype(np.float32)
    truth = inputs @ random.normal(size=(INPUTS, len(CLASSES)))
    labels = {
        "classification": lambda: np.where(np.arange(N) % 3 == 0, truth.argmax(1), -1),
        "multilabel": lambda: np.where(np.arange(N)[:, None] % 3 == 0, truth > 0, np.nan),
        "regression": lambda: np.where(np.arange(N)[:, None] % 3 == 0, truth, np.nan),
    }[family]()
    data = make_dataset(inputs, classes=CLASSES, labels=labels, ids=IDS, family=family)
    kind = "mean" if family == "regression" else "logits"
    tables = []
    for k in range(3):
        values = truth + (k + 1) * random.normal(size=truth.shape)
        rows = np.arange(N) if k else np.arange(10, N)
        columns = [0, 1, 2, 4] if case == "gaps" and k == 1 else list(range(len(CLASSES)))
        extra = {"variance": 0.3 + k} if family == "regression" else {}
        tables.append(
            make_table(
                f"teacher {k}",
                values[rows][:, columns],
                kind=kind,
                family=family,
                ids=[IDS[i] for i in rows],
                classes=[CLASSES[c] for c in columns],
                partial=len(columns) < len(CLASSES),
                **extra,
            )
        )
    top = 3 if case == "top" else None
    return data, align(tables, IDS, CLASSES, missing="mask", top=top)


def network(case: str, hidden: int = 7) -> nn.Module:
    n_outputs = len(CLASSES) * (2 if case == "numbers" else 1)
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(INPUTS, hidden), nn.Tanh(), nn.Linear(hidden, n_outputs))
    for parameter in net.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return net


@cache
def prepared(case: str, folder: Path | None = None):
    """A student and what it learns from, its teachers read from a store if there is one."""
    data, teachers = material(case)
    teachers = teachers if folder is None else load_outputs(folder)
    student = make_student(network(case))
    units = choose_units(data, teachers, None, None)
    weighting = choose_weighting("auto", data, teachers, None, None, units)
    assert weighting.rule == "stacked"
    found = training_set(student, data, teachers, weighting, None, units)
    if case != "numbers":  # nobody to be trusted, more or less so from row to row
        nobody = -3 + torch.randn(found.log_weights.shape[1:], generator=generators()[0])
        found = replace(found, nobody=nobody)
    return student, found


def generators(seed: int = 1):
    return chain_generators(seed, 0, CHAINS, torch.device("cpu"))


@pytest.fixture
def lazily(monkeypatch):
    """From when it is called, terms are worked out batch by batch."""
    return lambda: monkeypatch.setattr(batches_module, "_PREPARED", 0)


def close(first, second, **tolerance):
    assert type(first) is type(second)
    for a, b in zip(first, second, strict=True):
        if isinstance(a, tuple):
            close(a, b, **tolerance)
        else:
            torch.testing.assert_close(a, b, equal_nan=True, **tolerance)


@CASES
def test_batches_that_are_read_lazily_are_those_that_were_prepared(case, lazily):
    _, training = prepared(case)
    eager = Minibatches(training, PRIOR, generators())
    lazily()
    lazy = Minibatches(training, PRIOR, generators())
    for concentration in (3.0, 1.5):
        eager.set_concentration(concentration)
        lazy.set_concentration(concentration)
        for size in (1, 16, N - 1):
            close(eager(size), lazy(size), rtol=1e-5, atol=1e-6)
        whole, mapped = eager(N), lazy(2 * N)
        assert whole.n_examples == mapped.n_examples == N
        rows = slice(31, 77)
        close(whole.rows(rows), mapped.rows(rows), rtol=1e-5, atol=1e-6)


@CASES
def test_terms_prepared_in_pieces_are_those_prepared_at_once(case, monkeypatch):
    _, training = prepared(case)
    whole = Minibatches(training, PRIOR, generators())
    monkeypatch.setattr(batches_module, "_PIECE", 47 * training.values[:, 0].numel())
    pieces = Minibatches(training, PRIOR, generators())
    close(whole(N), pieces(N), rtol=1e-5, atol=1e-6)


def test_terms_are_prepared_as_long_as_they_fit(monkeypatch):
    _, training = prepared("classes")
    found = Minibatches(training, PRIOR, generators())(N).terms
    n_bytes = sum(part[0].nbytes for part in found)
    for limit, fits in ((n_bytes, True), (n_bytes - 1, False)):
        monkeypatch.setattr(batches_module, "_PREPARED", limit)
        made: list[float] = []

        def prepare(data, prior, concentration, made=made):
            made.append(concentration)
            return found

        monkeypatch.setattr(batches_module, "_prepared", prepare)
        minibatches = Minibatches(training, PRIOR, generators())
        minibatches.set_concentration(PRIOR.concentration)
        minibatches.set_concentration(9.0)
        assert made == [PRIOR.concentration, 9.0] * fits


@CASES
def test_modes_and_samples_are_the_same(case, lazily):
    student, training = prepared(case)
    settings = MapSettings(epochs=3, batch_size=32)
    sampler = SamplerSettings("sghmc", burn_in=20, draws=5, thinning=4, batch_size=32)

    def run():
        modes = find_modes(student, training, PRIOR, settings, n_chains=CHAINS, seed=0)
        chains = sample(student, training, PRIOR, sampler, modes, seed=0)
        return modes, torch.cat(list(chains.samples.segments), 1)

    eager = run()
    lazily()
    close(eager, run(), **CLOSE)


@CASES
def test_hmc_reads_a_lazy_data_set(case, lazily):
    student, training = prepared(case)
    modes = find_modes(student, training, PRIOR, MapSettings(2, 32), n_chains=CHAINS, seed=0)
    sampler = SamplerSettings("hmc", burn_in=20, draws=4, thinning=30, step_size=0.02)

    def run():
        chains = sample(student, training, PRIOR, sampler, modes, seed=0)
        assert chains.plan.engine == "hmc"
        return tuple(chains.samples.segments)

    eager = run()
    assert not torch.equal(eager[0][:, 0], eager[0][:, -1])
    lazily()
    close(eager, run(), **CLOSE)


@CASES
def test_a_gradient_in_parts_reads_a_lazy_data_set(case, lazily):
    student, training = prepared(case)
    position = student.initial_position(generators())

    def run():
        batches = Minibatches(training, PRIOR, generators())
        gradient = posterior_gradient(student, N, PRIOR.strength, training.observation)
        found = in_parts(gradient, n_rows=2 * 41)(position, batches(N))
        return tuple(part.clone() for part in found)

    eager = run()
    lazily()
    close(eager, run(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [case for case in FAMILIES if case != "top"])
@pytest.mark.parametrize("kind", ["last_layer", "diagonal"])
def test_precision_reads_a_lazy_data_set(case, kind, lazily):
    student, training = prepared(case)
    position = student.initial_position(generators())

    def run():
        batch = Minibatches(training, PRIOR, generators())(N)
        strength, observation = PRIOR.strength, training.observation
        return precision(student, position, batch, strength, kind, observation).matrix

    eager = run()
    lazily()
    torch.testing.assert_close(eager, run(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("case", ["classes", "gaps", "top"])
def test_evidence_reads_a_mapped_store(case, tmp_path):
    _, outputs = material(case)
    save_outputs(tmp_path, outputs)
    student, training = prepared(case)
    _, mapped = prepared(case, tmp_path)
    mode = student.initial_position(generators())[0]
    expected = disagreement_evidence(student, mode, training)
    assert disagreement_evidence(student, mode, mapped) == pytest.approx(expected, rel=1e-6)


def posterior(case: str, data, teachers, out=None):
    return distill(
        network(case),
        data,
        teachers,
        prior=PriorSettings(weights="entropy", concentration=3.0, power=2.0),
        modes=MapSettings(epochs=4, batch_size=32),
        sampler=SamplerSettings("sghmc", burn_in=20, draws=5, thinning=4, batch_size=32),
        chains=CHAINS,
        out=out,
    )


def draws(found) -> torch.Tensor:
    return torch.cat(list(found.samples.segments), 1)


def mapped_inputs(folder: Path, data):
    """The same data set, its inputs mapped from a file."""
    np.save(folder / "inputs.npy", data.inputs.numpy())
    inputs = np.load(folder / "inputs.npy", mmap_mode="r")
    made = make_dataset(
        inputs, classes=CLASSES, labels=data.labels, ids=data.ids, family=data.family
    )
    assert made.inputs.data_ptr() == inputs.ctypes.data  # not copied
    return made


@CASES
@pytest.mark.parametrize("lazy", [False, True])
def test_training_on_files_is_training_in_memory(case, lazy, lazily, tmp_path):
    data, outputs = material(case)
    if lazy:
        lazily()
    expected = posterior(case, data, outputs)
    save_outputs(tmp_path / "store", outputs)
    found = posterior(
        case, mapped_inputs(tmp_path, data), load_outputs(tmp_path / "store"), tmp_path / "run"
    )
    assert torch.equal(draws(found), draws(expected))


@CASES
def test_half_precision_trains_to_nearly_the_same(case, tmp_path, lazily):
    data, outputs = material(case)
    save_outputs(tmp_path, outputs, "float16")
    half = load_outputs(tmp_path)
    assert half.values.dtype == torch.float16
    said = replace(prepared(case)[1], values=half.values).said(slice(3, 9))
    assert torch.equal(said.values.nan_to_num(), half.values[:, 3:9].float().nan_to_num())
    assert said.values.dtype == torch.float32
    observation = outputs.observation
    single = posterior(case, data, outputs).predict(data.inputs)
    first = posterior(case, data, half).predict(data.inputs)
    lazily()
    second = posterior(case, data, half).predict(data.inputs)
    name = "mean" if observation.family == "regression" else "probs"
    for answer in (first, second):
        gap = abs(getattr(answer, name) - getattr(single, name)).max()
        assert 0 < gap < 0.02


def test_a_file_that_was_mapped_claims_the_folder_of_the_one_in_memory(tmp_path):
    data, outputs = material("classes")
    posterior("classes", data, outputs, tmp_path / "run")
    save_outputs(tmp_path / "store", outputs)
    mapped = mapped_inputs(tmp_path, data)
    again = posterior("classes", mapped, load_outputs(tmp_path / "store"), tmp_path / "run")
    assert torch.equal(draws(again), draws(posterior("classes", data, outputs)))


@pytest.mark.parametrize("shape", [(), (0,), (3,), (50, 7), (2, 3, 41), (1, 1, 200)])
def test_a_tensor_is_hashed_in_pieces_whatever_its_strides(shape, monkeypatch):
    monkeypatch.setattr("mtbkd.outputs.store._ROWS", 20)
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    for same in (tensor, tensor.mT.contiguous().mT if len(shape) > 1 else tensor):
        digest = hashlib.sha256()
        hash_tensor(digest, same)
        assert digest.hexdigest() == expected


def test_frozen_features_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("mtbkd.training._FEATURES", 64)
    data, _ = material("classes")
    student = make_student(network("classes"), sampled="2.*", example=data.inputs[:2])
    assert student.frozen is not None
    found = cached_features(student, data.inputs, tmp_path)
    torch.testing.assert_close(found, student.features(data.inputs))
    (path,) = (tmp_path / "features").iterdir()
    changed = replace(student, frozen=nn.Identity())  # other fixed tensors, so another file
    cached_features(changed, data.inputs, tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert torch.equal(load_file(str(path))["features"], found)


def test_rows_that_could_not_be_written_leave_nothing(tmp_path):
    def parts():
        yield torch.zeros(2, 3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        save_rows(tmp_path / "a.safetensors", "a", 4, parts())
    assert not list(tmp_path.iterdir())
