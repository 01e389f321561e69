"""Language models behind a server that fails: every row is answered, or has its reason."""

import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faulty_server import KEY, LABELS, Faulty, digest, reply, serving

from mtbkd.teachers import Examples, label
from mtbkd.teachers.base import CannotGoOn
from mtbkd.teachers.labelling.shards import from_line
from mtbkd.teachers.language.exchange import Limits, Server
from mtbkd.teachers.language.prompt import Prompt, Shot, as_messages, as_text, choose_shots
from mtbkd.teachers.language.replies import class_of, echoed, next_tokens, scores_of
from mtbkd.teachers.language.server import Asked, from_server
from mtbkd.teachers.language.store import Store
from mtbkd.types import InputError

ASK = Prompt("Topic of {{ text }}?", LABELS, tuple((c,) for c in LABELS))


def rows(n: int) -> Examples:
    texts = [{"text": f"news {i}"} for i in range(n)]
    return Examples([f"r{i}" for i in range(n)], lambda a, b: texts[a:b])


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def made(url: str, store: Path, prompt: Prompt = ASK, limits: Limits = Limits(), **how: object):
    server = Server(url, key="TEST_KEY", concurrency=4, timeout=0.3, pause=0.002, limits=limits)
    return from_server("critic", "tiny", prompt, server, asked=Asked(**how), store=store)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def lines(path: Path) -> list[dict | None]:
    return [from_line(line) for line in path.read_bytes().splitlines(keepends=True)]


def body_of(text: str, **more: object) -> dict:
    how = {"model": "tiny", "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20}
    return how | {"messages": [{"role": "user", "content": f"Topic of {text}?"}]} | more


@pytest.mark.parametrize("how", [{}, {"votes": 3}])
def test_a_faulty_server_costs_no_row_but_those_that_are_no_label(tmp_path, how):
    state = Faulty(rate=20)
    with serving(state) as url:
        table = label(
            made(url, tmp_path / "store", **how), rows(120), tmp_path / "labels", most_failures=0.2
        )
    path = tmp_path / "labels" / "failures.jsonl"
    failed = lines(path) if path.exists() else []
    assert len(table.ids) + len(failed) == 120
    assert 0 < len(failed) < 15 if not how else len(failed) <= 2
    assert all("no label" in record["error"] for record in failed)
    assert max(state.answered.values()) == 1
    written = b"".join(everything(tmp_path).values())
    assert KEY.encode() not in written
    assert b"TEST_KEY" not in b"".join(everything(tmp_path / "store").values())
    if not how:
        for key, values in zip(table.ids, table.values, strict=True):
            said = reply(body_of(f"news {key[1:]}"), False)["choices"][0]["logprobs"]["content"][0]
            told = {one["token"]: one["logprob"] for one in said["top_logprobs"]}
            expected = torch.tensor([told[c] for c in LABELS]).log_softmax(0)
            assert torch.allclose(values, expected, atol=1e-5)


def test_votes_are_counts_and_evidence(tmp_path):
    with serving(Faulty()) as url:
        table = label(made(url, tmp_path, votes=8), rows(30), tmp_path / "labels")
    assert table.totals is not None
    votes = np.zeros((30, 2))
    for i in range(30):
        for seed in range(8):
            body = body_of(f"news {i}", seed=seed, temperature=1, max_tokens=8 + 3)
            del body["logprobs"], body["top_logprobs"]
            votes[i, digest(body) % 2] += 1
    prior = table.totals.numpy() - 8
    assert prior.min() > 0
    assert np.allclose(prior, prior[0], atol=1e-4)
    base = (votes.sum(0) + 1) / (votes.sum() + 2)
    expected = (votes + prior[0] * base) / (8 + prior[0])
    assert np.allclose(table.values.exp().numpy(), expected, atol=1e-5)


ASKING = {"shard_rows": 40, "batch_size": 20, "most_failures": 0.2}


def test_stopped_anywhere_and_called_again_it_says_the_same(tmp_path, monkeypatch):
    state, put, done = Faulty(rate=30), Store.put, []
    with serving(state) as url:
        label(made(url, tmp_path / "calm"), rows(100), tmp_path / "one", **ASKING)
        first = state.answered.copy()

        def stopping(self, key, answer):
            put(self, key, answer)
            done.append(key)
            if len(done) in (7, 40, 80):
                raise KeyboardInterrupt

        monkeypatch.setattr(Store, "put", stopping)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                label(made(url, tmp_path / "store"), rows(100), tmp_path / "two", **ASKING)
        label(made(url, tmp_path / "store"), rows(100), tmp_path / "two", **ASKING)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    assert set((state.answered - first).values()) == {1}
    assert len(done) == len(set(done))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_language_server import ASKING, made, rows
from mtbkd.teachers import label
label(made({url!r}, Path({store!r})), rows({n}), Path({labels!r}), **ASKING)
"""


@pytest.mark.slow
def test_thousands_of_answers_of_a_faulty_server_killed_five_times(tmp_path):
    n, kills, state = 2_000, 5, Faulty(rate=100)
    told = []
    with serving(state) as url:
        label(made(url, tmp_path / "calm"), rows(n), tmp_path / "one", **ASKING)
        calm, store = state.answered.copy(), tmp_path / "store"
        code = KILLED.format(
            tests=str(Path(__file__).parent), url=url, store=str(store), n=n,
            labels=str(tmp_path / "two"),
        )  # fmt: skip
        stored: set[str] = set()
        for _ in range(kills):
            before = sum(state.answered.values())
            process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
            while sum(state.answered.values()) < before + n // (kills + 2):
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            told.append(process.communicate()[1])
            found = {x["key"] for x in lines(next(store.rglob("*.jsonl"))) if x}
            assert stored < found
            stored = found
        told.append(subprocess.run([sys.executable, "-c", code], check=True, stderr=-1).stderr)
    again = [name for name, times in (state.answered - calm).items() if times > 1]
    # in flight when it was killed, so not stored; at most as many as are asked at a time
    assert len(again) <= 4 * kills
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    failed = lines(tmp_path / "two" / "failures.jsonl")
    assert 5 < len(failed) < 40
    assert all("no label" in one["error"] for one in failed)
    assert KEY.encode() not in b"".join([*everything(tmp_path).values(), *told])


def test_a_limit_stops_cleanly_and_the_same_command_goes_on(tmp_path):
    state = Faulty()
    with serving(state) as url:
        for calls in (25, 25):
            few = made(url, tmp_path / "store", limits=Limits(calls=calls))
            with pytest.raises(CannotGoOn, match=r"at most 25 \(calls\).*same command"):
                label(few, rows(60), tmp_path / "labels")
        table = label(made(url, tmp_path / "store"), rows(60), tmp_path / "labels")
        assert len(table.ids) == 60
        assert len(state.bodies) == 60  # none was asked twice
        for limits in (Limits(tokens=110), Limits(cost=0.5, prices=(5e3, 0.0))):
            before = len(state.bodies)
            with pytest.raises(CannotGoOn, match="tokens|cost"):
                label(made(url, tmp_path / "b", limits=limits), rows(60), tmp_path / "c")
            assert len(state.bodies) - before <= 10 + 4


def test_a_wrong_key_is_told_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "sk-another")
    with serving(Faulty()) as url, pytest.raises(CannotGoOn, match="HTTP 401: .*bad key") as told:
        label(made(url, tmp_path), rows(5), tmp_path / "labels")
    assert "sk-another" not in str(told.value)
    for key in ("", "two\nlines"):
        monkeypatch.setenv("TEST_KEY", key)
        with pytest.raises(InputError, match="variable TEST_KEY") as told:
            made("http://127.0.0.1:9", tmp_path)
        assert "lines" not in str(told.value)


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(CannotGoOn, match="none could be reached"):
        label(made("http://127.0.0.1:9/v1", tmp_path), rows(5), tmp_path / "labels")
    with pytest.raises(InputError, match="without a password") as told:
        Server("http://me:secret@127.0.0.1/v1")
    assert "secret" not in str(told.value)


def test_an_answer_torn_by_a_kill_is_asked_again_and_spoils_no_other(tmp_path):
    state = Faulty()
    with serving(state) as url:
        label(made(url, tmp_path / "store"), rows(3), tmp_path / "a")
        path = next((tmp_path / "store").rglob("*.jsonl"))
        path.write_bytes(path.read_bytes()[:-7])
        label(made(url, tmp_path / "store"), rows(3), tmp_path / "b")
        label(made(url, tmp_path / "store"), rows(3), tmp_path / "c")
    assert len(state.bodies) == 4


def test_examples_and_labels_in_prompts():
    shots = (Shot({"text": "a cup"}, ("Sports",)), Shot({"text": "a war"}, ("World",)))
    prompt = Prompt(
        "Of {{ text }}:", LABELS, (("the world",), ("sport", "games")), True, shots, "Hm."
    )
    (question,) = prompt.questions({"text": "a vote"})
    assert as_messages(question, prompt.system) == [
        {"role": "system", "content": "Hm."},
        {"role": "user", "content": "Of a cup:"},
        {"role": "assistant", "content": "sport"},
        {"role": "user", "content": "Of a war:"},
        {"role": "assistant", "content": "the world"},
        {"role": "user", "content": "Of a vote:"},
    ]
    assert as_text(question) == ("Of a cup: sport\n\nOf a war: the world\n\nOf a vote:", " ")
    several = Prompt("Is {{ text }} {{ label }}?", ("f", "s"), (("funny",), ("sad",)), False,
                     (Shot({"text": "it"}, ("s",)),))  # fmt: skip
    asked = several.questions({"text": "that"})
    assert [q[-1].asked for q in asked] == ["Is that funny?", "Is that sad?"]
    assert [q[0].answer for q in asked] == ["No", "Yes"]
    with pytest.raises(InputError, match="'headline' is undefined. The columns are text"):
        Prompt("{{ headline }}", LABELS, ASK.texts).questions({"text": "x"})
    with pytest.raises(InputError, match="none begins another"):
        Prompt("", LABELS, (("sport",), ("sports",)))
    with pytest.raises(InputError, match="template of Jinja"):
        Prompt("{{ text", LABELS, ASK.texts)
    with pytest.raises(InputError, match="unsafe|undefined"):
        Prompt("{{ text.__class__.__mro__ }}", LABELS, ASK.texts).questions({"text": "x"})
    said = [("a",), ("a",), ("b",), (), ("c",)]
    assert choose_shots(said, [1, 0, 3, 4, 2], 4) == [1, 4, 2, 0]


def test_what_replies_say():
    chat = {"choices": [{"logprobs": {"content": [{"top_logprobs": [
        {"token": "?", "bytes": list(b"Wor"), "logprob": math.log(0.4)},
        {"token": "Sports", "bytes": None, "logprob": math.log(0.3)},
        {"token": "W", "logprob": math.log(0.2)}]}]}}]}  # fmt: skip
    found = next_tokens(chat)
    assert np.allclose(np.exp(scores_of(found, ASK.texts)), [0.4, 0.3])
    plain = {"choices": [{"logprobs": {"top_logprobs": [{" Sports": -1.0, " W": -2.0}]}}]}
    found = next_tokens(plain)
    # "World" is at most as probable as the least that is told: "W" is another way to begin
    texts = [(" World",), (" Sports",)]
    assert np.allclose(scores_of(found, texts), [-2.0, -1.0])
    assert scores_of([["Sci", -1.0]], [("Science",), ("Scifi",)]) is None
    assert scores_of([["no", -1.0]], ASK.texts) is None
    told = {"text_offset": [0, 2, 4, 6], "token_logprobs": [None, -1.0, -2.0, -4.0]}
    whole = {"choices": [{"logprobs": told}]}
    assert echoed(whole, 2, 6) == -3.0
    with pytest.raises(ValueError, match="across"):
        echoed(whole, 3, 6)
    assert [class_of(a, ASK.texts) for a in ("**sports**.\nas", "World", "a World", "")] == [
        1, 0, None, None]  # fmt: skip


def test_whole_texts_are_read_from_servers_that_repeat_prompts(tmp_path, monkeypatch):
    asked = []

    def answer(self, client, path, body, read):
        text = body["prompt"]
        asked.append(text)
        start = text.index("?") + 1
        offsets = [0, start, start + 2, len(text)]
        return read({"choices": [{"logprobs": {"text_offset": offsets, "token_logprobs": [
            None, -float(len(text)), -0.5, -9.0]}}]})  # fmt: skip

    monkeypatch.setattr("mtbkd.teachers.language.exchange.Exchange.ask", answer)
    found = made("http://127.0.0.1:9", tmp_path, chat=False, echo=True).predict([{"text": "x"}])
    assert asked == ["Topic of x? World", "Topic of x? Sports"]
    assert found.values.tolist() == [[-17.5, -18.5]]
    with pytest.raises(InputError, match="echo with completions"):
        Asked(echo=True)
