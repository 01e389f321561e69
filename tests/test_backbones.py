"""Protein language models: what is pooled, in which batches, and which folders are refused."""

import json
import random
import sys

import pytest
import torch
from tiny_backbones import ESM_WORDS, LETTERS, write_esm, write_t5

from mtbkd.inputs.frozen import batches
from mtbkd.inputs.proteins import source as sources
from mtbkd.inputs.proteins.alphabet import RESIDUES
from mtbkd.inputs.proteins.backbone import load_backbone
from mtbkd.inputs.proteins.embedding import embed
from mtbkd.types import InputError

transformers = pytest.importorskip("transformers")


def some_proteins(n=40, longest=20, seed=0):
    chance = random.Random(seed)
    return ["".join(chance.choices(RESIDUES, k=chance.randint(1, longest))) for _ in range(n)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"esm": write_esm(folder / "esm"), "t5": write_t5(folder / "t5")}


@pytest.fixture(params=["esm", "t5"])
def folder(models, request):
    return models[request.param]


def one_by_one(folder, sequences):
    """As the models' authors show it: one sequence, no padding, special tokens sliced off."""
    features = []
    if folder.name == "esm":
        tokenizer = transformers.EsmTokenizer.from_pretrained(folder)
        model = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
        start, separator = 1, ""
    else:
        tokenizer = transformers.T5Tokenizer.from_pretrained(folder)
        model = transformers.T5EncoderModel.from_pretrained(folder).eval()
        start, separator = 0, " "
        sequences = ["".join("X" if c in "UZOB" else c for c in s) for s in sequences]
    for sequence in sequences:
        tokens = tokenizer(separator.join(sequence), return_tensors="pt")
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state[0]
        assert len(hidden) == start + len(sequence) + 1
        features.append(hidden[start:-1].mean(0))
    return torch.stack(features)


def test_features_are_means_over_residues_alone(folder):
    proteins = [*some_proteins(), LETTERS[:20], "MUZOBX"]
    found = embed(load_backbone(folder, device="cpu"), proteins, max_tokens=64)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, one_by_one(folder, proteins), rtol=0, atol=1e-5)


def test_features_depend_on_neither_batch_nor_order(folder):
    backbone, proteins = load_backbone(folder, device="cpu"), some_proteins()
    whole = embed(backbone, proteins)
    alone = embed(backbone, proteins, max_tokens=1)
    backwards = embed(backbone, proteins[::-1], max_tokens=70).flip(0)
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(backwards, whole, rtol=0, atol=1e-5)
    assert embed(backbone, []).shape == (0, 16)


def test_batches_keep_to_the_budget():
    lengths = [random.Random(3).randint(1, 90) for _ in range(200)] + [500]
    found = list(batches(lengths, 300))
    assert sorted(row for batch in found for row in batch) == list(range(201))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) * longest <= 300 or len(batch) == 1
    assert found[0] == [200]
    assert len(found) < 60


def test_of_long_sequences_both_ends_are_shown(models):
    backbone = load_backbone(models["esm"], device="cpu")
    assert backbone.limit == 20
    long = "".join(random.Random(1).choices(RESIDUES, k=57))
    found = embed(backbone, [long])
    torch.testing.assert_close(found, embed(backbone, [long[:10] + long[-10:]]))
    odd = load_backbone(models["t5"], device="cpu", limit=7)
    torch.testing.assert_close(embed(odd, [long]), embed(odd, [long[:4] + long[-3:]]))
    free = load_backbone(models["t5"], device="cpu", limit=2000)
    torch.testing.assert_close(embed(free, [long]), one_by_one(models["t5"], [long]))


def test_progress_counts_proteins(models):
    told = []
    backbone = load_backbone(models["esm"], device="cpu")
    embed(backbone, some_proteins(), max_tokens=44, report=lambda *each: told.append(each))
    assert told[-1][1:] == (len(set(some_proteins())),) * 2
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})
    assert str(models["esm"]) in told[0][0]


def test_nothing_is_printed_and_global_randomness_is_untouched(models, capfd):
    state = torch.get_rng_state()
    embed(load_backbone(models["esm"], device="cpu"), ["MKV"])
    assert torch.equal(torch.get_rng_state(), state)
    assert capfd.readouterr() == ("", "")


def test_half_precision_of_t5_needs_weights_made_for_it(models, tmp_path):
    half = write_t5(tmp_path / "half", dtype=torch.float16)
    with pytest.raises(InputError, match=r"float32 or bfloat16 .* not stored in float16"):
        load_backbone(models["t5"], device="cpu", precision="float16")
    assert load_backbone(half, device="cpu").precision == "float32"
    exact = embed(load_backbone(half, device="cpu"), ["MKVLA"])
    for precision in ("bfloat16", "float16"):
        near = embed(load_backbone(half, device="cpu", precision=precision), ["MKVLA"])
        assert 0 < (near - exact).abs().max() < 0.1
        assert near.dtype == torch.float32


def test_prott5_as_it_is_published_has_a_sentencepiece_model(models, tmp_path):
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    lines = [" ".join(random.Random(i).choices(LETTERS[:21], k=60)) for i in range(200)]
    folder = write_t5(tmp_path / "t5")
    (folder / "tokenizer.json").unlink()
    trainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "spiece"),
        vocab_size=3 + 21 + 22,
        hard_vocab_limit=False,
        bos_id=-1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        minloglevel=2,
    )
    alphabet = load_backbone(folder, device="cpu").loaded.alphabet
    assert (alphabet.prefix, alphabet.suffix, alphabet.padding) == ((), (1,), 0)
    assert len({int(alphabet.codes[ord(c) - 65]) for c in RESIDUES}) == 20


def test_weights_as_they_are_published(models, tmp_path):
    """With the heads and the decoder of pre-training, in one file or in several."""
    esm, t5 = write_esm(tmp_path / "esm"), write_t5(tmp_path / "t5")
    proteins = some_proteins(5)
    with torch.random.fork_rng():
        masked = transformers.EsmForMaskedLM(transformers.EsmConfig.from_pretrained(esm))
        masked.esm.load_state_dict(
            transformers.EsmModel.from_pretrained(esm, add_pooling_layer=False).state_dict()
        )
        masked.save_pretrained(esm)
        whole = transformers.T5ForConditionalGeneration(
            transformers.T5Config.from_pretrained(t5, is_encoder_decoder=True)
        )
        source = transformers.T5EncoderModel.from_pretrained(t5).state_dict()
        lacking = whole.load_state_dict(source, strict=False)
        assert not lacking.unexpected_keys
        (t5 / "model.safetensors").unlink()
        whole.save_pretrained(t5, max_shard_size="10KB")
    assert len(list(t5.glob("*.safetensors"))) > 1
    for folder, kind in ((esm, "esm"), (t5, "t5")):
        expected = embed(load_backbone(models[kind], device="cpu"), proteins)
        found = embed(load_backbone(folder, device="cpu"), proteins)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    next(iter(t5.glob("*-of-*.safetensors"))).unlink()
    with pytest.raises(InputError, match=r"weights of the model .* in model-0000\d-of-0"):
        load_backbone(t5, device="cpu")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json in the folder .* it has none"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json in .* got: "),
        (lambda f: (f / "vocab.txt").unlink(), r"tokenizer of the model .* in vocab\.txt"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            r"weights .* in model\.safetensors, but there are none but pytorch_model\.bin",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-100]
            ),
            r"safetensors in model\.safetensors .* got: .* Fetch",
        ),
        (
            lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
            r"ESM or T5 model at .* model_type 'bert'",
        ),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), r"index of weights"),
    ],
)
def test_folders_that_hold_no_model(models, tmp_path, break_it, message):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in models["esm"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    load_backbone(folder, device="cpu")
    break_it(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_backbone(folder, device="cpu")
    assert len(caught.value.faults) == 1


def test_weights_that_do_not_fit_their_config(models, tmp_path):
    folder = write_esm(tmp_path / "esm")
    config = json.loads((folder / "config.json").read_text())
    for change, message in [
        ({"num_hidden_layers": 3}, r"'encoder\.layer\.2.*is missing"),
        ({"intermediate_size": 48}, r"'encoder\.layer\.0\.inter.* another shape \(6 such"),
    ]:
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            embed(load_backbone(folder, device="cpu"), ["MKV"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([w for w in ESM_WORDS if w not in "KR"], "does not know K, R"),
        ([*ESM_WORDS, "<new>"], r"at most 33 tokens .* but got 34"),
        ([*ESM_WORDS[:4], "MKVL", *ESM_WORDS[5:]], "does not know L"),
    ],
)
def test_tokenizers_of_other_models(tmp_path, words, message):
    folder = write_esm(tmp_path / "esm", words=words)
    with pytest.raises(InputError, match=message):
        embed(load_backbone(folder, device="cpu"), ["MKV"])


def test_wrong_settings_and_sequences(models, tmp_path):
    esm = models["esm"]
    for settings, message in [
        ({"limit": 21}, "between 2 and 20"),
        ({"limit": 1}, "between 2 and 20"),
        ({"precision": "int8"}, "a precision among auto"),
        ({"device": "abacus"}, "a device of this machine"),
    ]:
        with pytest.raises(InputError, match=message):
            load_backbone(esm, **{"device": "cpu"} | settings)
    with pytest.raises(InputError, match="nothing at '/nowhere'"):
        load_backbone("/nowhere")
    with pytest.raises(InputError, match="is a file"):
        load_backbone(esm / "config.json")
    backbone = load_backbone(esm, device="cpu")
    with pytest.raises(InputError, match=r"sequence 1, but got the sign 'k' .2 such") as caught:
        embed(backbone, ["MKV", "Mkv", ""])
    assert "sequence 2, but got none" in str(caught.value)
    with pytest.raises(InputError, match="max_tokens of 1 or more"):
        embed(backbone, ["MKV"], max_tokens=0)


def test_features_that_overflow_are_told(models, tmp_path):
    backbone = load_backbone(models["esm"], device="cpu")
    nan = type(backbone.loaded)(
        backbone.loaded.alphabet, lambda t, m: torch.full((*t.shape, 16), torch.inf)
    )
    backbone.__dict__["loaded"] = nan
    with pytest.raises(InputError, match="finite features .* in float32"):
        embed(backbone, ["MKV"])


def test_without_the_library_the_extra_is_named(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'mtbkd\[proteins\]'"):
        embed(load_backbone(models["esm"], device="cpu"), ["MKV"])


def test_an_id_is_taken_from_disk_else_fetched_else_converted(models, monkeypatch, tmp_path):
    import huggingface_hub as hub

    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    asked, on_disk, bare = [], set(), tmp_path / "bare"
    bare.mkdir()
    strange = type("Request", (), {"author": "Somebody", "status": "open", "num": 9})
    request = type("Request", (), {"author": "SFconvertbot", "status": "open", "num": 7})

    def download(name, *, revision, allow_patterns, local_files_only=False):
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        asked.append((revision, local_files_only))
        if local_files_only and revision not in on_disk:
            raise OSError("not here")
        on_disk.add(revision)
        return models["esm"] if revision in ("refs/pr/7", "v1") else bare

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "get_repo_discussions", lambda *_, **__: [strange, request])
    assert sources.find_protein_model("some/model").folder == models["esm"]
    assert asked == [(None, True), (None, False), ("refs/pr/7", False)]
    asked.clear()
    assert sources.find_protein_model("some/model").folder == models["esm"]
    assert asked == [("refs/pr/7", True)]  # found again without a network
    asked.clear()
    assert sources.find_protein_model("some/model@v1").folder == models["esm"]
    assert asked == [("v1", True), ("v1", False)]
    with pytest.raises(InputError, match=r"config\.json"):
        sources.find_protein_model("some/model@v2")


def test_an_id_that_cannot_be_fetched_is_one_message(monkeypatch, tmp_path):
    import huggingface_hub as hub

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("no connection\nmore")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"'facebook/esm2_t6_8M_UR50D' on disk or from the hub"):
        load_backbone("facebook/esm2_t6_8M_UR50D")
