"""Every file of a finished run: harmed in any way, readers name it or answer as before."""

import errno
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from own_data import NEAREST, write_config, write_examples, write_module, write_table

import mtbkd
from mtbkd import files as files_of_ours
from mtbkd.app.config.run import build_config, load_config
from mtbkd.app.folder import read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Labelling
from mtbkd.app.run import commands, diagnose, new_inputs, stages
from mtbkd.distillation.posterior import load_posterior
from mtbkd.files import read_sealed, save_sealed

SETTINGS = [
    "map.epochs=3",
    "sampler.engine=sghmc",
    "sampler.burn_in=20",
    "sampler.draws=20",
    "sampler.thinning=1",
    "chains=2",
    "prior.evidence=null",
]
COLUMNS = {"synthetic": 4, "diabetes": 10, "own": 2}


def predict(out):
    found = new_inputs.predict_run(out, out.parent / "new.csv")
    said = found.predictive.probs if hasattr(found.predictive, "probs") else found.predictive.mean
    return [found.ids, found.classes, said, found.causes.outside, found.causes.flags]


def evaluate(out):
    return {name: value for name, value in commands.evaluate_run(out).items() if name != "cost"}


def report(out):
    return commands.report_run(out).read_bytes()


def load(out):
    config = read_run(out)
    recipe = find_recipe(config.recipe)
    example = torch.zeros(2, COLUMNS[config.recipe])
    family = "regression" if config.recipe == "diabetes" else "classification"
    classes = tuple("abc") if family == "classification" else ("progression",)
    network = stages.network(recipe, config, example, classes, family)
    again = load_posterior(network, out, example, classes, weight_scale=config.student.weight_scale)
    draws = torch.cat(again.samples.segments, 1)
    return [draws, again.weighting, again.prior, again.modes, again.units]


def predict_few(out):
    found = new_inputs.predict_run(out, out.parent / "new.csv", n_draws=8)
    return [found.ids, found.predictive.total, found.causes.flags]


READERS = {
    "predict": predict,
    "few": predict_few,
    "evaluate": evaluate,
    "report": report,
    "load": load,
}


def run_again(config, out, **options):
    return commands.run(config, out, labelling=Labelling(may_run_code=True), **options)


RUNS = ["synthetic", *(pytest.param(n, marks=pytest.mark.slow) for n in ("diabetes", "own"))]


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory):
    """A finished run, with new inputs beside it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "own":
        write_examples(folder)
        write_table(folder)
        write_module(folder, "verified", NEAREST)
        teachers = {
            "old": {"table": "old.csv", "kind": "probs"},
            "near": {"factory": "verified:nearest"},
        }
        config = load_config(write_config(folder, teachers), ["sampler.draws=20", "baselines=all"])
    else:
        config = build_config(find_recipe(request.param).defaults, SETTINGS)
    run_again(config, folder / "run")
    width = COLUMNS[request.param]
    rows = np.linspace(-1, 1, 6 * width).reshape(6, width)
    lines = [",".join(["id", *(f"x{i + 1}" for i in range(width))])]
    lines += [",".join([f"new{i}", *map(str, row)]) for i, row in enumerate(rows)]
    (folder / "new.csv").write_text("\n".join(lines) + "\n")
    for reader in ("evaluate", "report"):  # what it writes differs in milliseconds at most
        READERS[reader](folder / "run")
    return folder / "run"


@pytest.fixture
def sketched(monkeypatch):
    """Figures are not laid out: a page holds the numbers, paths and words that are drawn."""

    def numbers(artist):
        if isinstance(artist, Line2D):
            return artist.get_xydata()
        if isinstance(artist, Patch):
            return artist.get_patch_transform().transform(artist.get_path().vertices)
        if isinstance(artist, Collection):
            paths = [path.vertices for path in artist.get_paths()]
            return [*paths, artist.get_offsets(), artist.get_array(), artist.get_facecolor()]
        return artist.get_text() if isinstance(artist, Text) else artist.get_array()

    def sketch(figure, file, **_):
        drawn = [
            plain(numbers(artist))
            for axes in figure.axes
            for kind in ("lines", "patches", "collections", "images", "texts")
            for artist in getattr(axes, kind)
        ]
        file.write(f"<svg>{json.dumps(drawn)}</svg>")

    monkeypatch.setattr(Figure, "savefig", sketch)


def plain(value):
    """Answers as something that can be compared."""
    if isinstance(value, bytes):
        return value
    if hasattr(value, "__dict__") and not isinstance(value, torch.Tensor):
        value = vars(value)
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


def files(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())


def a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def the_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path):
    path.write_bytes(b"")


def gone(path):
    path.unlink()


def its_like(path):
    """Another file of this kind, the next one in the run."""
    out = path.parent if (path.parent / "config.yaml").exists() else path.parent.parent
    alike = [p for p in sorted(out.rglob(f"*{path.suffix}")) if p.read_bytes() != path.read_bytes()]
    after = [p for p in alike if p > path] or alike
    path.write_bytes(after[0].read_bytes() if after else b"other")


HARMS = [its_like, gone, emptied, a_byte, the_last_byte, cut]
ENOUGH = 3
"""Harms after which a file counts as not read, if none of them was noticed."""
ALIKE = re.compile(r"baselines/.*-[14]\.safetensors|cross_fit/fold-[1-3]\.safetensors")
"""Files that the code of others writes and reads, which lie beside them and are harmed."""


def leaves(value, path=()):
    """Every value inside, with the keys that lead to it."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    return f"{value}0" if isinstance(value, str) else 0


def with_others(value):
    """The same with one value changed, and with one list reversed, each in turn."""
    for path, leaf in leaves(value):
        changed = json.loads(json.dumps(value))
        inner = changed
        for key in path[:-1]:
            inner = inner[key]
        if path:
            inner[path[-1]] = other(leaf)
            yield changed
    for key in value if isinstance(value, dict) else ():
        if isinstance(value[key], list) and value[key] != value[key][::-1]:
            yield value | {key: value[key][::-1]}


def name_in(error, name):
    for fault in error.faults:
        assert fault.startswith("Expected ")
        assert fault.endswith(".")
    assert name in str(error)
    return True


def refused_or_as_before(reader, out, name, before):
    """Whether a reader names the file; else its answers have to be what they were."""
    try:
        found = plain(READERS[reader](out))
    except mtbkd.InputError as error:
        return name_in(error, name)
    assert repr(found) == repr(before), f"{reader} answers otherwise"
    return False


def harm_each(run, tmp_path, ask, harms):
    """Harm each file in each way; the names of those that were refused at least once."""
    out, refused = tmp_path / "run", set()
    shutil.copy(run.parent / "new.csv", tmp_path)
    shutil.copytree(run, out)
    for name in (n for n in files(run) if not ALIKE.fullmatch(n)):
        for place, harm in enumerate(harms):
            if place == ENOUGH and name not in refused:
                break
            harm(out / name)
            if ask(out, name):
                refused.add(name)
            else:  # it may have been made again, and others with it
                shutil.rmtree(out)
                shutil.copytree(run, out)
            shutil.copy(run / name, out / name)
    return refused


SAMPLED = {"modes.safetensors", "student.safetensors", "weights.json", "samples/manifest.json"}
SAMPLED |= {f"samples/draws-000{i}.safetensors" for i in range(2)}
JUDGED = {"metrics.json", "predictions.parquet", "evaluation.safetensors"}
READ = {
    "load": SAMPLED,
    "predict": SAMPLED | {"background.safetensors", "teachers/manifest.json"},
    "few": SAMPLED | {"background.safetensors", "few.safetensors"},
    "evaluate": SAMPLED
    | {"few.safetensors", "background.safetensors", "teachers/outputs.safetensors"},
    "report": SAMPLED | JUDGED | {"teachers/outputs.safetensors"},
}


def check_reader(reader, run, tmp_path, harms):
    before = plain(READERS[reader](run))
    refused = harm_each(
        run, tmp_path, lambda out, name: refused_or_as_before(reader, out, name, before), harms
    )
    assert READ[reader] | {"config.yaml", "manifest.json"} <= refused
    if "units.safetensors" in files(run):
        assert "units.safetensors" in refused


@pytest.mark.parametrize("reader", ["predict", "load"])
def test_a_harmed_file_is_named_or_changes_no_answer(reader, run, tmp_path):
    check_reader(reader, run, tmp_path, HARMS)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("reader", ["evaluate", "report"])
def test_a_changed_file_is_named_or_changes_no_answer(reader, run, tmp_path):
    check_reader(reader, run, tmp_path, [its_like])


@pytest.mark.slow
@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("run", ["diabetes", "own"], indirect=True)
@pytest.mark.parametrize("reader", ["evaluate", "report"])
def test_a_file_harmed_in_any_way_is_named_or_changes_no_answer(reader, run, tmp_path):
    check_reader(reader, run, tmp_path, HARMS)


@pytest.mark.parametrize("name", ["samples/draws-0001.safetensors", "teachers/costs.json"])
def test_nothing_is_diagnosed_of_a_changed_file(name, run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    a_byte(out / name)
    with pytest.raises(mtbkd.InputError, match=f"{name} as it was written, but"):
        diagnose.diagnose_run(out)


def test_a_distilled_run_is_verified_before_it_is_finished(run, tmp_path):
    before = plain(predict(run))
    begun = shutil.copytree(run, tmp_path / "begun" / "run")
    shutil.copy(run.parent / "new.csv", begun.parent)
    for name in ("manifest.json", "report.html", *JUDGED):
        (begun / name).unlink()
    refused = harm_each(
        begun,
        tmp_path,
        lambda out, name: (
            name == "config.yaml" or refused_or_as_before("predict", out, name, before)
        ),
        HARMS,
    )
    assert READ["predict"] <= refused


def test_names_in_another_order_are_found_even_with_a_hash_that_fits(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    shutil.copy(run.parent / "new.csv", tmp_path)
    path = out / "teachers" / "manifest.json"
    record = read_sealed(path)
    save_sealed(path, record | {"classes": [*record["classes"][::-1], "more"]})
    with pytest.raises(mtbkd.InputError, match="teachers/manifest.json as it was written"):
        predict(out)


def test_no_manifest_is_taken_for_another(run, tmp_path):
    paths = ("manifest.json", "samples/manifest.json", "teachers/manifest.json")
    shutil.copy(run.parent / "new.csv", tmp_path)
    for name in paths:
        for other_name in paths:
            out = shutil.copytree(run, tmp_path / "run")
            shutil.copy(run / other_name, out / name)
            if name != "manifest.json":
                (out / "manifest.json").unlink()
            if name != other_name:
                with pytest.raises(mtbkd.InputError, match=f"{name} as it was|in .*{name}, but"):
                    predict(out)
            shutil.rmtree(out)


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("reader", READERS)
def test_every_value_of_a_file_counts_or_changes_no_answer(reader, run, tmp_path):
    before = plain(READERS[reader](run))
    out = tmp_path / "run"
    shutil.copy(run.parent / "new.csv", tmp_path)
    shutil.copytree(run, out)
    tried = 0
    for name in (n for n in files(run) if n.endswith((".json", ".yaml"))):
        read, dump = (json.loads, lambda v: json.dumps(v, indent=1) + "\n")
        if name.endswith(".yaml"):
            read, dump = yaml.safe_load, lambda v: yaml.safe_dump(v, sort_keys=False)
        for changed in with_others(read((run / name).read_text())):
            tried += 1
            (out / name).write_text(dump(changed))
            if not refused_or_as_before(reader, out, name, before):
                break  # it is not read
        if (out / name).read_bytes() != (run / name).read_bytes():
            shutil.rmtree(out)
            shutil.copytree(run, out)
    assert tried > 60


def asked(run):
    return read_run(run)


def without_costs(metrics):
    return {name: value for name, value in metrics.items() if name != "cost"}


@pytest.mark.usefixtures("undrawn")
def test_metrics_that_are_gone_are_made_again(run, tmp_path):
    before = json.loads((run / "metrics.json").read_text())
    out = shutil.copytree(run, tmp_path / "run")
    (out / "metrics.json").unlink()
    with pytest.raises(mtbkd.InputError, match=r"metrics.json is missing. Finish it with `mtbkd"):
        commands.report_run(out)
    again = run_again(asked(run), out)
    assert without_costs(again) == without_costs(before)
    assert again["cost"]["seconds"] == before["cost"]["seconds"] != {}
    (out / "metrics.json").unlink()
    again = commands.evaluate_run(out)
    assert without_costs(again) == without_costs(before)
    assert again["cost"]["seconds"] == before["cost"]["seconds"]
    said = []
    assert run_again(asked(run), out, say=said.append) == again
    assert said == ["nothing to do: the run is complete"]
    a_byte(out / "metrics.json")
    with pytest.raises(mtbkd.InputError, match="metrics.json as .* again with `mtbkd evaluate"):
        run_again(asked(run), out)
    assert without_costs(commands.evaluate_run(out)) == without_costs(before)


def test_evaluation_does_not_bless_what_else_was_changed(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    (out / "report.html").write_text("another")
    commands.evaluate_run(out)
    with pytest.raises(mtbkd.InputError, match="report.html as it was written"):
        run_again(asked(run), out)


@pytest.mark.usefixtures("undrawn")
def test_draws_that_are_gone_are_drawn_again(run, tmp_path):
    out = shutil.copytree(run, tmp_path / "run")
    (out / "samples" / "draws-0000.safetensors").unlink()
    run_again(asked(run), out)
    for name in ("samples/draws-0000.safetensors", "samples/draws-0001.safetensors"):
        assert (out / name).read_bytes() == (run / name).read_bytes()


def resumed(run, tmp_path, harms):
    """An unfinished run with a harmed file: refused by name, or finished with the same metrics."""
    config, before = asked(run), without_costs(json.loads((run / "metrics.json").read_text()))
    begun = shutil.copytree(run, tmp_path / "begun" / "run")
    shutil.copy(run.parent / "new.csv", begun.parent)
    for name in ("manifest.json", "samples/manifest.json", "report.html", *JUDGED):
        (begun / name).unlink()

    def ask(out, name):
        try:
            found = without_costs(run_again(config, out))
        except mtbkd.InputError as error:
            return name_in(error, name)
        assert found == before, name
        return False

    return harm_each(begun, tmp_path, ask, harms)


@pytest.mark.usefixtures("undrawn")
def test_an_empty_file_of_an_unfinished_run_is_named(run, tmp_path):
    refused = resumed(run, tmp_path, [emptied])
    assert {"samples/checkpoint.safetensors", "modes.safetensors", "weights.json"} <= refused
    assert {"request.json", "teachers/costs.json", "background.safetensors"} <= refused
    assert any(name.startswith("baselines/") for name in refused)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("run", ["diabetes", "own"], indirect=True)
def test_a_harmed_file_of_an_unfinished_run_is_named_or_made_again(run, tmp_path):
    resumed(run, tmp_path, [a_byte, gone])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.usefixtures("undrawn")
def test_a_disk_that_fails_is_one_message_and_nothing_is_half_written(
    code, run, tmp_path, monkeypatch
):
    config, after = asked(run), iter([True] * 9)

    def fail(path, real=files_of_ours._sync):
        if not next(after, False):
            raise OSError(code, os.strerror(code))
        real(path)

    monkeypatch.setattr(files_of_ours, "_sync", fail)
    told = "no space left on the disk. Free some" if code == errno.ENOSPC else os.strerror(code)
    with pytest.raises(mtbkd.InputError, match=rf"Expected to write .*run/.*{told}") as caught:
        run_again(config, tmp_path / "run")
    assert len(caught.value.faults) == 1
    assert not [name for name in files(tmp_path) if name.endswith(".partial")]
    assert all((tmp_path / name).stat().st_size for name in files(tmp_path))
    monkeypatch.undo()
    before = json.loads((run / "metrics.json").read_text())
    assert without_costs(run_again(config, tmp_path / "run")) == without_costs(before)


def test_a_distilled_run_keeps_the_level_of_its_sets(run, tmp_path):
    begun = shutil.copytree(run, tmp_path / "run")
    for name in ("manifest.json", "report.html", *JUDGED):
        (begun / name).unlink()
    config = yaml.safe_load((begun / "config.yaml").read_text())
    config["predict"]["level"] = 0.5
    (begun / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(run.parent / "new.csv", tmp_path)
    for reader in (predict, evaluate):
        with pytest.raises(mtbkd.InputError, match="background.safetensors of predict.level 0.5"):
            reader(begun)
    (begun / "background.safetensors").unlink()
    evaluate(begun)
    assert predict(begun)
