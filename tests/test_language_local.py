"""Language models in memory: whole continuations, whatever they share."""

import json

import numpy as np
import pytest
import torch
from tiny_language import tiny, write_language_model

transformers = pytest.importorskip("transformers")

from mtbkd.teachers.language.local import Running, _load, from_language_model  # noqa: E402
from mtbkd.teachers.language.prompt import Prompt, Shot  # noqa: E402
from mtbkd.teachers.language.scoring import Scorer, plain_scores  # noqa: E402
from mtbkd.types import InputError  # noqa: E402


@torch.inference_mode()
def by_hand(model, text: list[int], start: int) -> float:
    logits = model(torch.tensor([text])).logits[0].double()
    steps = logits.log_softmax(-1)
    return float(sum(steps[at - 1, text[at]] for at in range(start, len(text))))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mistral"])
@pytest.mark.parametrize("max_tokens", [1, 100])
@torch.inference_mode()
def test_scores_are_those_of_each_text_by_itself(architecture, max_tokens):
    model, chance = tiny(architecture), np.random.default_rng(1)
    prefix = chance.integers(97, size=20).tolist()
    texts, starts = [], []
    for row in range(6):
        stem = prefix + chance.integers(97, size=1 + 3 * row).tolist()
        tails = [[k, *chance.integers(97, size=n).tolist()] for k, n in enumerate((0, 3, 1, 5))]
        texts.append([stem + tail for tail in tails[: 2 + row % 3]])
        starts.append(len(stem))
    for shares in (True, False):
        found = Scorer(model, max_tokens, shares).scores(texts)
        for scores, several, start in zip(found, texts, starts, strict=True):
            expected = [by_hand(model, text, start) for text in several]
            assert np.abs(scores.numpy() - expected).max() <= 1e-4
            assert np.allclose(plain_scores(model, several, start), expected, atol=1e-4)


def test_what_all_prompts_begin_with_is_computed_once():
    model, sizes = tiny("llama"), []
    hook = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    texts = [[[*range(40), row, 1, 5], [*range(40), row, 1, 6, 7]] for row in range(50, 58)]
    Scorer(model).scores(texts)
    hook.remove()
    assert sizes == [40, 8 * 3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tiny model that reads words, and a chat template that it has or has not."""
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    _load.cache_clear()
    return lambda template=None: (tmp_path, write_language_model(tmp_path, template))


def test_several_texts_of_a_class_add_up(folder, monkeypatch):
    place, number = folder()
    shots = (Shot({"text": "cup"}, ("Sports",)),)
    texts = (("World", "the world"), ("Sports",))
    prompt = Prompt("{{ text }} Topic :", ("World", "Sports"), texts, True, shots)
    teacher = from_language_model("small", place, prompt, Running(device="cpu"))
    found = teacher.predict([{"text": "vote a"}, {"text": "b"}])
    model = transformers.AutoModelForCausalLM.from_pretrained(place).eval()
    for row, text in zip(found, ("vote a", "b"), strict=True):
        start = [number[w] for w in f"cup Topic : Sports {text} Topic :".split()]
        world, the_world, sports = (
            by_hand(model, start + [number[w] for w in said.split()], len(start))
            for said in ("World", "the world", "Sports")
        )
        assert np.allclose(row, [np.logaddexp(world, the_world), sports], atol=1e-4)
    assert teacher.kind == "logits"
    monkeypatch.setattr(Scorer, "scores", None)  # what was answered is not computed again
    assert np.array_equal(teacher.predict([{"text": "b"}, {"text": "vote a"}]), found[::-1])
    monkeypatch.undo()
    other = Prompt("{{ text }} Topic:", ("World", "Sports"), texts, True, shots)
    again = from_language_model("small", place, other, Running(device="cpu"))
    assert again.fingerprint != teacher.fingerprint


def test_one_question_for_each_label_through_a_chat(folder):
    template = (
        "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}model : {% endif %}"
    )
    place, number = folder(template)
    prompt = Prompt("Is it {{ label }} ? {{ text }}", ("w", "s"), (("World",), ("Sports",)), False)
    teacher = from_language_model("small", place, prompt, Running(device="cpu"))
    found = teacher.predict([{"text": "cup"}, {"text": "vote vote"}])
    model = transformers.AutoModelForCausalLM.from_pretrained(place).eval()
    assert found.shape == (2, 2)
    for row, text in zip(found, ("cup", "vote vote"), strict=True):
        for odds, label in zip(row, ("World", "Sports"), strict=True):
            words = f"user : Is it {label} ? {text} model :".split()
            start = [number[w] for w in words]
            yes, no = (by_hand(model, [*start, number[w]], len(start)) for w in ("Yes", "No"))
            assert abs(odds - (yes - no)) <= 1e-4
    assert teacher.family == "multilabel"


def test_models_that_are_none_are_told(folder, tmp_path):
    place, _ = folder()
    prompt = Prompt("{{ text }}", ("a", "b"), (("a",), ("b",)))
    with pytest.raises(InputError, match="has none. Leave out chat"):
        from_language_model("t", place, prompt, Running(chat=True, device="cpu"))
    (place / "model.safetensors").unlink()
    _load.cache_clear()
    with pytest.raises(InputError, match="causal language model with safetensors weights"):
        from_language_model("t", place, prompt)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"x\.gguf' for teacher 't'"):
        from_language_model("t", tmp_path / "x.gguf", prompt)
    config = json.loads((place / "config.json").read_text())
    bloom = {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97}
    (place / "config.json").write_text(json.dumps(bloom))
    model = transformers.AutoModelForCausalLM.from_config(transformers.BloomConfig(**bloom))
    model.save_pretrained(place)
    _load.cache_clear()
    with pytest.raises(InputError, match="side by side, but got BloomForCausalLM"):
        from_language_model("t", place, prompt)
    assert config["model_type"] == "llama"
