"""Frozen text models: any of Hugging Face, pooled as their folder says, asked once."""

import json
import shutil

import pytest
import torch
from texts_data import as_sentence_transformer, news, write_bert, write_gpt, write_t5

from mtbkd.inputs.texts import encoder
from mtbkd.inputs.texts.encoder import embed_texts, load_text_model
from mtbkd.types import InputError

transformers = pytest.importorskip("transformers")

TEXTS = [*news(9)[0], "ball", "a ball and the moon of it was said " * 9]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def copied(bert, tmp_path):
    return shutil.copytree(bert, tmp_path / "bert")


def one_by_one(folder, texts, length, pool):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    found = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt").input_ids
        with torch.no_grad():
            found.append(pool(model(input_ids=ids).last_hidden_state[0]))
    return torch.stack(found)


def mean(hidden):
    return hidden.mean(0)


@pytest.mark.parametrize("write", [write_bert, write_gpt, write_t5])
def test_texts_are_means_of_their_tokens(write, tmp_path, monkeypatch):
    folder = write(tmp_path / "model")
    monkeypatch.setattr(encoder, "_PROCESSOR_TOKENS", 40)
    monkeypatch.setattr(encoder, "_TOKENISED", 4)
    model = load_text_model(folder, device="cpu")
    limit = 512 if write is write_t5 else 32
    assert (model.reading.limit, model.reading.pooling) == (limit, "mean")
    state = torch.get_rng_state()
    found = embed_texts(model, TEXTS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found, one_by_one(folder, TEXTS, limit, mean), atol=1e-5, rtol=0)


def test_a_folder_of_sentence_transformers_says_how(copied):
    as_sentence_transformer(copied, length=8)
    model = load_text_model(copied, device="cpu")
    means = one_by_one(copied, TEXTS, 8, mean)
    expected = torch.nn.functional.normalize(means)
    torch.testing.assert_close(embed_texts(model, TEXTS), expected, atol=1e-5, rtol=0)
    as_sentence_transformer(copied, "Transformer", "Pooling", pooling_mode_cls_token=True)
    first = one_by_one(copied, TEXTS, 8, lambda hidden: hidden[0])
    again = load_text_model(copied, device="cpu")
    torch.testing.assert_close(embed_texts(again, TEXTS), first, atol=1e-5, rtol=0)
    assert again.key() != model.key()


def test_positions_of_some_models_start_behind_padding(tmp_path):
    model = load_text_model(write_bert(tmp_path / "a", pad=1), device="cpu")
    assert model.reading.limit == 32
    config = tmp_path / "a" / "config.json"
    told = json.loads(config.read_text()) | {"model_type": "roberta"}
    config.write_text(json.dumps(told))
    assert load_text_model(tmp_path / "a", device="cpu").reading.limit == 30


def test_features_are_asked_for_once(copied, tmp_path, monkeypatch):
    told = []
    first = embed_texts(load_text_model(copied), TEXTS, tmp_path, lambda *p: told.append(p))
    assert told[-1][1:] == (len(TEXTS), len(TEXTS))

    def ask(*_):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(encoder, "_load", ask)
    again = embed_texts(load_text_model(copied), TEXTS[::-1], tmp_path)
    assert torch.equal(again, first.flip(0))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "weights of the model"),
        (lambda f: (f / "tokenizer.json").unlink(), "the tokenizer of the model"),
        (lambda f: (f / "config.json").write_text("{}"), "model_type None"),
        (lambda f: as_sentence_transformer(f, "Transformer", "Pooling", "Dense"), "say Dense"),
        (lambda f: as_sentence_transformer(f, pooling_mode_max_tokens=True), "max_tokens"),
        (lambda f: (f / "modules.json").write_text("3"), "JSON in modules.json"),
    ],
)
def test_folders_that_are_no_text_models_are_refused_at_once(copied, spoil, told):
    spoil(copied)
    with pytest.raises(InputError, match=told):
        load_text_model(copied)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"num_hidden_layers": 3}, "is missing"),
        ({"hidden_size": 32}, "has another shape"),
        ({"vocab_size": 9}, "has another shape"),
        ({"model_type": "no such model"}, "a text model with its tokenizer"),
        ({"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"}, "a text model"),
    ],
)
def test_weights_that_do_not_fit_are_refused(copied, changed, told):
    config = copied / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    with pytest.raises(InputError, match=told):
        embed_texts(load_text_model(copied), TEXTS)


def test_another_models_tokenizer_is_refused(copied, tmp_path):
    small = write_bert(tmp_path / "small", vocab_size=9)
    for path in copied.glob("tokenizer*"):
        shutil.copy(path, small)
    with pytest.raises(InputError, match="own tokenizer"):
        embed_texts(load_text_model(small), TEXTS)
