"""Language models in a configuration: from prompts to a run, and asked about new rows."""

import json

import numpy as np
import pytest
import yaml
from faulty_server import KEY, Faulty, serving
from own_data import FAST, call, write_csv

from mtbkd.app.config.run import build_config, load_config
from mtbkd.outputs.store import load_outputs
from mtbkd.types import InputError

TOPICS = ("World", "Sports")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEST_KEY", KEY)
    return tmp_path


def write_texts(folder, n=60):
    chance = np.random.default_rng(0)
    words = {"World": "vote war city law".split(), "Sports": "cup goal team race".split()}
    rows = []
    for i in range(n):
        topic = TOPICS[i % 2]
        text = " ".join(chance.choice(words[topic], 5))
        rows.append([f"r{i}", f"{text} {i}", topic if i % 5 else "", f"day {i}"])
    return write_csv(folder / "posts.csv", ["id", "text", "topic", "day"], rows)


def config(folder, **teachers):
    own = {"examples": "posts.csv", "labels": "topic", "text": "text", "teachers": teachers}
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump({"recipe": "own", "seed": 1, **FAST, "own": own}))
    return path


def served(url, **more):
    prompt = "On {{ day }}: {{ text }}\nTopic:"
    how = {"base_url": url, "model": "tiny", "prompt": prompt, "key": "TEST_KEY", "timeout": 2}
    return how | more


def test_from_prompts_to_a_report_and_to_new_rows(folder, monkeypatch, capsys):
    write_texts(folder)
    state = Faulty(rate=150)
    with serving(state) as url:
        path = config(
            folder, one=served(url, examples=4), two=served(url, votes=2, system="Be brief.")
        )
        code, _, err = call(monkeypatch, capsys, "run", path, "--out", folder / "run")
        assert code == 0, err
        outputs = load_outputs(folder / "run" / "teachers")
        assert outputs.totals is not None
        # rows that a model was shown are in no split
        record = json.loads((folder / "run" / "examples.json").read_text())
        shown = [row["text"] for row, _ in record["shots"]]
        assert sorted(says[0] for _, says in record["shots"]) == ["Sports"] * 2 + ["World"] * 2
        assert len(outputs.ids) == 56
        bodies = [b for b in state.bodies if len(b["messages"]) > 2]
        assert {len(b["messages"]) for b in bodies} == {9}
        assert not any(text in b["messages"][-1]["content"] for b in state.bodies for text in shown
                       if "votes" not in b and b.get("logprobs"))  # fmt: skip
        page = (folder / "run" / "report.html").read_text()
        assert "no label" in page
        asked = len(state.bodies)
        assert call(monkeypatch, capsys, "defer", folder / "run", "--cost", "1", "20")[0] == 0
        new = [[f"n{i}", f"cup team {i}", f"day {i}"] for i in range(6)]
        write_csv(folder / "new.csv", ["id", "text", "day"], new)
        code, _, err = call(monkeypatch, capsys, "ask", folder / "run", folder / "new.csv")
        assert code == 0, err
        assert len(state.bodies) >= asked + 6 + 12
        # the same examples were shown
        assert state.bodies[-1]["messages"] or True
        last = [b for b in state.bodies[asked:] if b.get("logprobs")]
        assert {json.dumps(b["messages"][:8]) for b in last} == {
            json.dumps(b["messages"][:8]) for b in bodies
        }
    held = [p for p in folder.rglob("*") if p.is_file()]
    assert not any(KEY.encode() in p.read_bytes() for p in held)


def test_faults_of_language_models_are_told(folder):
    write_texts(folder)
    base = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "prompt": "{{ text }}"}

    def faults(**changes):
        own = {"examples": "p.csv", "labels": "topic", "text": "text"}
        teacher = base | {k: v for k, v in changes.items() if k != "family"}
        more = {"family": changes["family"]} if "family" in changes else {}
        with pytest.raises(InputError) as told:
            build_config({"recipe": "own", "own": own | more | {"teachers": {"t": teacher}}})
        return str(told.value)

    assert "template of Jinja" in faults(prompt="{{ text")
    assert "reads the column 'topic'" in faults(prompt="{{ topic }}")
    assert "'t' for regression" in faults(family="regression")
    for key in ("sk-123", "abcdef0123456789"):
        told = faults(key=key)
        assert "environment variable" in told
        assert key not in told
    assert "language_model" in faults(language_model="x")
    path = config(folder, t=base | {"labels": {"Worlds": "w"}})
    from mtbkd.app.recipes.own.making import make_teacher

    own = load_config(path).own
    with pytest.raises(InputError, match="labels of teacher 't' among World, Sports.*'Worlds'"):
        make_teacher("t", own.teachers["t"], own, TOPICS)
