"""The command line as a user meets it: what it makes, and how it refuses."""

import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import yaml

from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.folder import open_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run.report_data import _command
from mtbkd.errors import InputError

TINY = [
    *("--set", "map.epochs=3"),
    *("--set", "sampler.burn_in=10"),
    *("--set", "sampler.draws=6"),
    *("--set", "sampler.thinning=2"),
    *("--set", "chains=2"),
]


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command line here; returns exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "argv", ["mtbkd", *map(str, arguments)])
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    found = capsys.readouterr()
    return int(str(code or 0)), found.out, found.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished tiny run of digits."""
    out = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mtbkd", "run", "digits", "--out", str(out), *TINY])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    return out


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run, to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_run_leaves_every_artefact_and_none_half_written(finished):
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "predictions.parquet",
        "report.html",
        "teachers/outputs.safetensors",
        "teachers/manifest.json",
        "samples/draws-0000.safetensors",
        "samples/manifest.json",
    } <= names
    assert not [name for name in names if "partial" in name or Path(name).name.startswith(".")]
    assert "http" not in (finished / "report.html").read_text().replace("http://www.w3.org/", "")


def test_metrics_and_predictions_tell_the_same(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert set(metrics["baselines"]) == {
        "labels only",
        "averaged KD",
        "entropy-weighted KD",
        "ensemble on the stacked pool",
    }
    assert metrics["rival"]["name"] == "ensemble on the stacked pool"
    assert metrics["rival"]["nll"]["student"] == pytest.approx(metrics["student"]["nll"])
    ensemble = metrics["baselines"]["ensemble on the stacked pool"]
    assert metrics["rival"]["nll"]["rival"] == pytest.approx(ensemble["nll"])
    assert set(metrics["cost"]["cpu_seconds"]["baselines"]) == set(metrics["baselines"])
    assert (metrics["n_train"], metrics["n_labelled"], metrics["n_test"]) == (600, 100, 500)
    rows = pq.read_table(finished / "predictions.parquet").to_pylist()
    right = np.mean([row["prediction"] == row["label"] for row in rows])
    assert metrics["student"]["accuracy"] == pytest.approx(right)
    covered = np.mean([row["label"] in row["credible_set"] for row in rows])
    assert metrics["student"]["coverage_90"] == pytest.approx(covered)
    for row in rows:
        assert row["credible_set"][0] == row["prediction"]
        assert row["total"] == pytest.approx(row["aleatoric"] + row["epistemic"])
        shares = sum(value for key, value in row.items() if key.startswith("responsibility."))
        assert 0 <= shares <= 1 + 1e-5  # the rest is the share of trusting nobody


def test_the_same_command_again_has_nothing_to_do(finished, monkeypatch, capsys):
    before = (finished / "manifest.json").stat().st_mtime_ns
    code, out, _ = call(monkeypatch, capsys, "run", "digits", "--out", finished, *TINY)
    assert code == 0
    assert "Bayesian student" in out
    assert (finished / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.usefixtures("undrawn")
def test_stages_one_by_one_make_what_a_run_makes(finished, tmp_path, monkeypatch, capsys):
    out = tmp_path / "steps"
    assert call(monkeypatch, capsys, "teach", "digits", "--out", out, *TINY)[0] == 0
    assert call(monkeypatch, capsys, "distill", out)[0] == 0
    assert call(monkeypatch, capsys, "evaluate", out)[0] == 0
    assert call(monkeypatch, capsys, "report", out)[0] == 0
    for name in ("predictions.parquet", "samples/draws-0000.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_predict_writes_every_format_alike(finished, tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 17, (5, 64))
    source = tmp_path / "new.csv"
    header = ",".join(["id", *(f"p{i}" for i in range(64))])
    rows = [f"image-{i}," + ",".join(map(str, row)) for i, row in enumerate(pixels)]
    source.write_text("\n".join([header, *rows]) + "\n")
    for suffix in ("parquet", "csv", "jsonl"):
        code, out, _ = call(
            monkeypatch, capsys, "predict", finished, source, "--out", tmp_path / f"a.{suffix}"
        )
        assert code == 0
        assert "5 predictions" in out
    parquet = pq.read_table(tmp_path / "a.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert parquet == lines
    assert [row["id"] for row in lines] == [f"image-{i}" for i in range(5)]
    table = pa_csv.read_csv(tmp_path / "a.csv").to_pylist()
    for row, line in zip(table, lines, strict=True):
        assert row["prob.3"] == pytest.approx(line["prob.3"])
        assert row["credible_set"] == "; ".join(line["credible_set"]) or row["credible_set"] == int(
            line["credible_set"][0]
        )
    assert sum(lines[0][f"prob.{c}"] for c in range(10)) == pytest.approx(1)


def test_recipes_are_listed_and_copied(tmp_path, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "recipes")
    assert code == 0
    assert "digits" in out
    path = tmp_path / "mine.yaml"
    assert call(monkeypatch, capsys, "recipes", "copy", "digits", path)[0] == 0
    assert yaml.safe_load(path.read_text())["prior"]["power"] == 30.0
    code, _, err = call(monkeypatch, capsys, "recipes", "copy", "digits", path)
    assert code == 2
    assert f"{path} exists" in err


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["run", "digit"], ["Expected one of the recipes digits"]),
        (["run", "digits", "--set", "colour=1"], ["Expected only known keys, but got `colour`"]),
        (
            ["run", "digits", "--set", "prior.strength=1", "--set", "chains=many"],
            ["known keys, but got `prior.strength`", "`chains` to be a valid integer, but got"],
        ),
        (["run", "digits", "--set", "chains=0"], ["`chains` to be greater than or equal to 1"]),
        (["run", "digits", "--set", "prior=papers"], ["there is paper"]),
        (["run", "digits", "--set", "prior.concentration=-1"], ["concentration above 0, but got"]),
        (["run", "digits", "--set", "sampler.draws=0"], ["draws above 0, but got 0"]),
        (["run", "digits", "--set", "sampler.engine=hmcc"], ["`sampler.engine` to be"]),
        (["run", "digits", "--set", "student.hidden=[0]"], ["`student.hidden.0` to be greater"]),
        (["run", "digits", "--set", "seed"], ["Expected --set key=value, but got 'seed'"]),
        (["run", "missing.yaml"], ["Expected a configuration file at missing.yaml"]),
        (["predict", "nowhere", "x.csv", "--out", "y.csv"], ["a run directory at nowhere"]),
        (["predict", "nowhere", "x.csv", "--out", "y.xlsx"], ["Expected an output ending in"]),
        (["report", "nowhere"], ["Expected a run directory at nowhere"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_each(arguments, messages, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) == len(messages)
    for message in messages:
        assert message in err
    assert list(tmp_path.iterdir()) == []


def test_all_faults_of_a_file_are_told_at_once(tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text("recipe: digits\nstudent: {hidden: wide}\nseed: -1\nsampler: {steps: 5}\n")
    code, _, err = call(monkeypatch, capsys, "run", path)
    assert code == 2
    assert "`student.hidden`" in err
    assert "`seed`" in err
    assert "`sampler.steps`" in err
    path.write_text("- a list\n")
    assert "Expected a YAML mapping" in call(monkeypatch, capsys, "run", path)[2]
    path.write_text("a: [\n")
    assert "Expected YAML in" in call(monkeypatch, capsys, "run", path)[2]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = call(monkeypatch, capsys, "run", "digits", "--out", tmp_path / "file" / "run")
    assert code == 2
    assert "config.yaml, but got: Not a directory. Make it writable, or choose another --out" in err


def test_a_folder_with_something_else_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = call(monkeypatch, capsys, "run", "digits", "--out", tmp_path)
    assert code == 2
    assert "it holds something else" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_left_of_the_first_file_is_no_obstacle(tmp_path, monkeypatch, capsys):
    (tmp_path / ".config.yaml.partial").write_text("recipe: dig")
    assert call(monkeypatch, capsys, "teach", "digits", "--out", tmp_path, *TINY)[0] == 0


def test_another_configuration_does_not_mix_into_a_run(finished, monkeypatch, capsys):
    code, _, err = call(monkeypatch, capsys, "run", "digits", "--out", finished)
    assert code == 2
    assert "config.yaml differs" in err


@pytest.mark.parametrize(("kind", "names"), [("none", 0), ("fast", 1)])
@pytest.mark.usefixtures("undrawn")
def test_few_baselines_or_none(kind, names, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    asked = ["run", "digits", "--out", out, *TINY, "--baselines", kind]
    code, shown, err = call(monkeypatch, capsys, *asked)
    assert (code, err) == (0, "")
    metrics = json.loads((out / "metrics.json").read_text())
    assert len(metrics["baselines"]) == len(metrics["cost"]["cpu_seconds"]["baselines"]) == names
    assert ("baseline: ensemble on the stacked pool" in shown) == (kind == "fast")
    assert ("rival" in metrics) == (kind == "fast")
    code, _, err = call(monkeypatch, capsys, "run", out, "--baselines", "all")
    assert (code, "Expected a run directory alone" in err) == (2, True)
    code, _, err = call(monkeypatch, capsys, *asked[:-1], "some")
    assert (code, err) == (
        2,
        "mtbkd: Expected `baselines` to be 'none', 'fast' or 'all', but got 'some'. Correct it.\n",
    )


@pytest.mark.parametrize(("once", "now"), [("true", "all"), ("false", "none")])
def test_baselines_as_they_were_written_once(once, now, tmp_path):
    defaults = find_recipe("digits").defaults
    config = build_config(defaults, ["chains=2", f"baselines={once}"])
    assert config.baselines == now
    open_run(tmp_path, config)
    stored = tmp_path / "config.yaml"
    old = stored.read_text().replace(f"baselines: {now}", f"baselines: {once}")
    stored.write_text(old)
    (tmp_path / "modes.safetensors").touch()
    open_run(tmp_path, config)
    assert stored.read_text() == old
    with pytest.raises(InputError, match="config.yaml differs"):
        open_run(tmp_path, build_config(defaults, ["chains=2", "baselines=fast"]))


@pytest.mark.parametrize("gone", ["samples/manifest.json", "config.yaml"])
def test_a_half_written_run_does_not_predict(gone, copied, tmp_path, monkeypatch, capsys):
    (copied / gone).unlink()
    source = tmp_path / "new.npy"
    np.save(source, np.zeros((1, 64)))
    code, _, err = call(monkeypatch, capsys, "predict", copied, source, "--out", tmp_path / "a.csv")
    assert code == 2
    assert "Expected a" in err
    assert not (tmp_path / "a.csv").exists()


def test_what_answers_are_compared_with_is_made_again(copied, tmp_path, monkeypatch, capsys):
    background, source = copied / "background.safetensors", tmp_path / "new.npy"
    before = background.read_bytes()
    background.unlink()
    np.save(source, np.zeros((1, 64)))
    asked = ("predict", copied, source, "--out", tmp_path / "a.csv")
    code, _, err = call(monkeypatch, capsys, *asked)
    assert code == 2
    assert f"Make it with `mtbkd evaluate {copied}`" in err
    assert call(monkeypatch, capsys, "evaluate", copied)[0] == 0
    assert background.read_bytes() == before
    assert call(monkeypatch, capsys, *asked)[0] == 0


def test_a_store_whose_bytes_were_changed_is_refused(copied, monkeypatch, capsys):
    shard = copied / "teachers" / "outputs.safetensors"
    spoilt = bytearray(shard.read_bytes())
    spoilt[-1] ^= 1
    shard.write_bytes(bytes(spoilt))
    code, _, err = call(monkeypatch, capsys, "evaluate", copied)
    assert code == 2
    assert "outputs.safetensors as it was written, but got other bytes" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,a\nx,1\n", "Expected 64 numbers for each row of images"),
        ("a,b\nx,y\n", "Expected 64 numbers for each row of images in"),
    ],
)
def test_inputs_of_another_shape_are_refused(
    content, message, finished, tmp_path, monkeypatch, capsys
):
    source = tmp_path / "new.csv"
    source.write_text(content)
    out = tmp_path / "a.csv"
    code, _, err = call(monkeypatch, capsys, "predict", finished, source, "--out", out)
    assert code == 2
    assert message in err
    assert not out.exists()


def new_images(path: Path) -> Path:
    header = ",".join(f"p{i}" for i in range(64))
    np.savetxt(path, np.full((2, 64), 3.0), delimiter=",", header=header, comments="")
    return path


def test_answers_are_never_written_over_what_they_are_made_of(
    copied, tmp_path, monkeypatch, capsys
):
    source = new_images(tmp_path / "new.csv")
    before = source.read_bytes()
    (tmp_path / "link.csv").hardlink_to(source)
    for out in (source, tmp_path / "run" / ".." / "new.csv", tmp_path / "link.csv"):
        code, _, err = call(monkeypatch, capsys, "predict", copied, source, "--out", out)
        assert code == 2
        assert f"Expected another file to write to, but got {out}, which is the input" in err
        assert source.read_bytes() == before
    own = copied / "predictions.parquet"
    before = own.read_bytes()
    code, _, err = call(monkeypatch, capsys, "predict", copied, source, "--out", own)
    assert code == 2
    assert f"{own}, which is a file of {copied}. Choose another --out." in err
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("new.csv", "new.predictions.parquet"),
        ("a.b.csv", "a.b.predictions.parquet"),
        ("2024.05.01.csv", "2024.05.01.predictions.parquet"),
    ],
)
def test_answers_keep_the_name_of_the_input(name, answers, finished, tmp_path, monkeypatch, capsys):
    source = new_images(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, "predict", finished, source)
    assert code == 0
    assert out.splitlines()[-1] == f"2 predictions: {answers}"
    assert (tmp_path / answers).exists()


@pytest.mark.usefixtures("undrawn")
def test_a_system_without_the_module_resource_closes_runs(copied, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    (copied / "manifest.json").unlink()
    assert call(monkeypatch, capsys, "run", copied)[0] == 0
    assert json.loads((copied / "manifest.json").read_text())["peak_memory_bytes"] is None


@pytest.mark.slow
def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-c", "from mtbkd.app.cli import main; main()", "run", "digits"]
    process = subprocess.Popen(
        [*command, "--out", tmp_path / "run", "--set", "map.epochs=2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    patience = time.monotonic() + 120
    while not (tmp_path / "run" / "request.json").exists() and time.monotonic() < patience:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"")
    assert told == b"mtbkd: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("synthetic", ["prior.evidence=null", "scenario=null"]),
        ("digits", ["student.weight_scale=0.00001", "map.learning_rate=1.0e-5", "prior=paper"]),
        ("digits", ["student.hidden=[3, 4]", "baselines=none", "data=\"1: 2 # 'x'\""]),
        ("digits", ["student.hidden=[]", 'data="null"', "sampler.step_size=0.5"]),
    ],
)
def test_the_command_of_a_report_makes_the_same_run(recipe, changes):
    config = build_config(find_recipe(recipe).defaults, [*changes, "seed=3"])
    program, run, name, *words = shlex.split(_command(config))
    assert (program, run, name) == ("mtbkd", "run", recipe)
    sets = [word for word in words[2:] if word != "--set"]
    again = build_config(find_recipe(name).defaults, [f"seed={words[1]}", *sets])
    assert again == config
