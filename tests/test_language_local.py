"""Language models in memory: whole continuations, whatever they share."""

import json

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

from mtbkd.teachers.language.local import Running, _load, from_language_model  # noqa: E402
from mtbkd.teachers.language.prompt import Prompt, Shot  # noqa: E402
from mtbkd.teachers.language.scoring import Scorer, plain_scores  # noqa: E402
from mtbkd.types import InputError  # noqa: E402

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]


def tiny(architecture: str, seed: int = 0):
    """A model with random weights, three times as large as usual, so that it is sure of things."""
    t = transformers
    if architecture == "gpt2":
        config = t.GPT2Config(
            vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=None,
            eos_token_id=None,
        )  # fmt: skip
    elif architecture == "gemma3":
        config = t.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=LAYERS)
    elif architecture == "mistral":
        config = t.MistralConfig(**SHAPE, sliding_window=8)
    else:
        config = t.LlamaConfig(**SHAPE)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        model = t.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


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
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = (
        "<unk> a b Topic : World Sports the world cup vote user model yes no Yes No ? Is it".split()
    )
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")

    def write(template: str | None = None):
        fast.chat_template = template
        fast.save_pretrained(tmp_path)
        tiny("llama").save_pretrained(tmp_path)
        return tmp_path, {w: i for i, w in enumerate(words)}

    return write


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
