"""Configurations, overrides and options that cannot be meant: a message each, and nothing made."""

import os
from pathlib import Path

import pytest
from own_data import call

from mtbkd.app.config.run import build_config, load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run import stages
from mtbkd.types import InputError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
OVERRIDES = {
    "seed=[": "Expected YAML in --set seed=",
    "seed=\t\t[1": "Expected YAML in --set seed=",
    "seed=2147483648": "`seed` to be less than 2147483648, but got 2147483648",
    f"seed={2**63}": "`seed` to be less than",
    "seed=-1": "`seed` to be greater than or equal to 0",
    "seed=": "`seed` to be a valid integer, but got None",
    "seed=2024-99-99": "Expected YAML in --set seed=",
    "seed=" + "9" * 5000: "Expected YAML in --set seed=",
    "seed=" + "x" * 10**6: "1,000,000 characters, more than 262,144",
    "seed=" + "x" * 10**5: "`seed` to be a valid integer, but got 'xxx",
    "seed=" + "[" * 3000: "more than 32 levels",
    "seed=!!python/object/apply:os.system [ls]": "Expected YAML in --set seed=",
    "seed=!!bool maybe": "a value that does not fit its tag",
    "seed=&a [*a]": "more than 65,536 values",
    "chains=" + str(10**30): "`chains` to be less than or equal to 1000",
    "student.hidden=[1000000000]": "`student.hidden.0` to be less than or equal to 65536",
    "student.hidden=" + str([1] * 99): "`student.hidden` to be",
    "student.weight_scale=.inf": "`student.weight_scale` to be less than or equal to",
    "student.weight_scale=.nan": "`student.weight_scale` to be",
    "predict.level=.nan": "`predict.level` to be",
    "predict.level=1": "`predict.level` to be less than 1",
    "device=nonsense": "Expected a device of this machine, but got 'nonsense'",
    "scenario=paded": "Expected `scenario` of the recipe digits to be one of padded",
    "prior.powr=3": "`prior.powr`. Remove it or correct its spelling. Did you mean 'power'?",
    "x" * 10**5 + "=1": "Expected only known keys, but got `xxx",
    ".".join("a" * 5000) + "=1": "Expected only known keys, but got `a`",
    'data="a\\0b"': "the character NUL",
    'data="\\ud800"': "Expected YAML in --set data=",
}  # fmt: skip
FILES = {
    b"": "Expected a YAML mapping in",
    b"- 1\n": "Expected a YAML mapping in",
    b"recipe: digits\n\tseed: 1\n": "Expected YAML in",
    "recipe: digits # größer\n".encode("latin-1"): "but got the byte 0xf6 at position",
    "recipe: digits\n".encode("utf-16"): "but got the byte 0xff at position 0",
    b"recipe: digits\nrecipe: digits\n": "the key 'recipe' twice",
    BOMB.encode(): "more than 65,536 values",
    b"a: " + b"[" * 5000: "more than 32 levels",
    b"a: !!python/object/apply:os.system [ls]\n": "Expected YAML in",
    b"recipe: digitz\nstudent: {hidden: []}\n": "Did you mean 'digits'?",
    b"recipe: digits\nstudent: {hidden: []}\n1: 2\n": "Keys should be strings",
    b"recipe: own\nstudent: {hidden: []}\n": "Expected the section `own`",
}


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda o: o[:30])
def test_an_override_that_cannot_be_meant_is_told(override, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "run", "digits", "--set", override)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert OVERRIDES[override] in err
    assert len(err) < 2400
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("text", FILES, ids=lambda t: t[:30])
def test_a_file_that_cannot_be_meant_is_told(text, tmp_path, monkeypatch, capsys):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text)
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "run", path)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert FILES[text] in err
    assert os.listdir(tmp_path) == ["bad.yaml"]


def test_no_more_faults_are_told_than_are_read(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("recipe: digits\n" + "".join(f"key{i}: 1\n" for i in range(5000)))
    with pytest.raises(InputError) as error:
        load_config(path)
    assert len(error.value.faults) == 21
    assert error.value.faults[-1] == "Expected no faults, but got 4,981 more. Mend these first."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "x" * 300), "Expected one of the recipes digits"),
        (("run", "x" * 300 + ".yaml"), "Expected a configuration file at"),
        (("run", "digits", "--out", "x" * 300), "Expected to write to"),
        (("run", "digits", "--out", "file"), "Expected file to be new or a run"),
        (("run", "file/x.yaml"), "Expected a configuration file at file/x.yaml"),
        (("run", "."), "Expected one of the recipes"),
        (("teach", "digits", "--batch-size", "2"), "--batch-size with the recipe own only"),
        (("recipes", "copy", "digits", "x" * 300), "Expected to write"),
        (("recipes", "copy", "digits", "file"), "Expected a new file, but file exists"),
        (("recipes", "copy", "diabetis"), "Did you mean 'diabetes'?"),
        (("data", "get", "deeplok"), "Expected a data set among"),
        (("report", "x" * 300), "Expected "),
    ],
)  # fmt: skip
def test_names_that_cannot_be_used_are_told(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("option", ["--seed", "--nonsense", "--out"])
def test_an_option_that_is_none_ends_with_exit_code_2(option, monkeypatch, capsys):
    assert (
        call(monkeypatch, capsys, "run", "digits", option, *(["x"] * (option == "--seed")))[0] == 2
    )


def test_draws_that_no_memory_holds_are_refused_with_their_size(tmp_path):
    recipe = find_recipe("digits")
    config = build_config(recipe.defaults, ["student.hidden=[60000, 60000]"])
    with pytest.raises(InputError, match="at most 64 GB, but got 5,767 GB: 50 draws of 8 chains"):
        stages.load(recipe, config, tmp_path)
    stages.load(recipe, build_config(recipe.defaults, ["student.hidden=[2000]"]), tmp_path)


def test_parts_may_be_repeated_by_reference_and_a_mark_of_order_is_no_fault(tmp_path):
    path = tmp_path / "good.yaml"
    text = "recipe: digits\nstudent: &s {hidden: [3]}\nmap: {<<: {epochs: 4}}\n"
    path.write_text(text, encoding="utf-8-sig")
    config = load_config(path)
    assert (config.student.hidden, config.map.epochs) == ([3], 4)
