"""Hashed n-grams: what is counted, how it is weighted, and that a block is nothing but its rows."""

import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from texts_data import COMMON, news

from mtbkd.files import load_tensors, save_tensors
from mtbkd.inputs.texts import hashing, ngrams
from mtbkd.inputs.texts.hashing import BUCKETS, hashed
from mtbkd.inputs.texts.ngrams import NGrams, fit_ngrams
from mtbkd.types import InputError

LETTERS = st.text(st.sampled_from("ab cé1-.,!\n東İß👍"), max_size=40)


def spelt(text: str) -> Counter[str]:
    """N-grams one by one, as the docstring says."""
    text = unicodedata.normalize("NFKC", text).lower()
    letters = "".join(c if c.isalnum() else " " for c in text)
    words, before = [], " "
    for sign, letter in zip(text, letters, strict=True):
        if letter != " ":
            words[-1:] = [words[-1] + sign] if before != " " else [*words[-1:], sign]
        elif sign.isprintable() and sign != " ":
            words.append(sign)
        before = letter
    padded = f" {letters} "
    rows = [padded[i : i + 4] for i in range(len(padded) - 3)]
    pairs = [f"{a} {b}" for a, b in zip(words[:-1], words[1:], strict=True)]
    kept = [f"four {row}" for row in rows if " " not in row[1:3]]
    return Counter([*(f"word {w}" for w in words), *(f"pair {p}" for p in pairs), *kept])


@given(LETTERS)
def test_each_n_gram_is_counted(text):
    _, buckets = hashed([text])
    assert sorted(Counter(buckets.tolist()).values()) == sorted(spelt(text).values())


@given(st.lists(LETTERS, min_size=1, max_size=6))
def test_a_text_is_the_same_alone_and_in_a_block(texts):
    rows, buckets = hashed(texts)
    for row, text in enumerate(texts):
        alone = hashed([text])[1]
        assert sorted(buckets[rows == row].tolist()) == sorted(alone.tolist())


def test_buckets_hardly_collide_and_are_evenly_filled():
    _, buckets = hashed([f"w{i}" for i in range(50_000)])
    words = buckets[:50_000]
    expected = BUCKETS * (1 - (1 - 1 / BUCKETS) ** 50_000)
    assert abs(len(set(words.tolist())) - expected) < 5 * np.sqrt(50_000 - expected)
    share = np.bincount(words // (BUCKETS // 16), minlength=16) / 50_000
    assert abs(share - 1 / 16).max() < 5 * np.sqrt(1 / 16 / 50_000)


def test_the_buckets_are_those_of_every_machine():
    """Run directories hold buckets, so a change of the hash would make them lie."""
    _, buckets = hashed(["Über 2 cats"])
    assert buckets[:3].tolist() == [545668, 689110, 321586]
    assert buckets.sum() == 5015301


def test_blocks_hold_every_text_once(monkeypatch):
    monkeypatch.setattr(hashing, "_BLOCK_LETTERS", 10)
    monkeypatch.setattr(hashing, "_BLOCK_TEXTS", 3)
    texts = ["a" * n for n in (4, 4, 40, 1, 1, 1, 1, 9)]
    found = [len(texts[rows]) for rows in hashing.blocks(texts)]
    assert found == [2, 1, 3, 2]
    assert [t for rows in hashing.blocks(texts) for t in texts[rows]] == texts


def test_features_are_tf_idf_on_leading_directions(monkeypatch):
    texts, _ = news(60)
    made = fit_ngrams(texts, seed=0, dimensions=8)
    counts = [Counter(hashed([text])[1].tolist()) for text in texts]
    documents = Counter(bucket for count in counts for bucket in count)
    kept = sorted(bucket for bucket, n in documents.items() if n >= 2)
    assert made.buckets.tolist() == kept
    rarity = np.array([np.log(61 / (1 + documents[b])) + 1 for b in kept])
    np.testing.assert_allclose(made.rarity, rarity, rtol=1e-6)
    weights = np.array(
        [[(1 + np.log(c[b])) * r if c[b] else 0.0 for b, r in zip(kept, rarity, strict=True)]
         for c in counts]
    )  # fmt: skip
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    expected = weights @ made.axes.double().numpy() - made.centre.double().numpy()
    found = made.features(texts).double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert abs(found.mean(0)).max() < 1e-4
    assert found.var(0).mean() == pytest.approx(1, abs=1e-3)
    directions = np.linalg.svd(weights, full_matrices=False)[2][:8]
    ours = np.linalg.qr(made.axes.double().numpy())[0]
    assert np.linalg.svd(directions @ ours)[1].min() > 0.9  # cosines of angles between both


def test_memory_and_threads_do_not_change_features(monkeypatch):
    texts, _ = news(200)
    made = fit_ngrams(texts, seed=0)
    whole = made.features(texts)
    monkeypatch.setattr(hashing, "_BLOCK_TEXTS", 7)
    assert torch.equal(made.features(texts), whole)
    assert made.features([]).shape == (0, made.axes.shape[1])


def test_nothing_known_is_minus_the_centre():
    made = fit_ngrams(news(60)[0], seed=0)
    found = made.features(["xyzzy", "", " "])
    assert torch.equal(found, -made.centre.expand(3, -1))


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    texts, _ = news(200)
    for name in ("a", "b"):
        save_tensors(tmp_path / name / "x", fit_ngrams(texts, seed=3).tensors())
    assert (tmp_path / "a" / "x").read_bytes() == (tmp_path / "b" / "x").read_bytes()
    again = NGrams(**load_tensors(tmp_path / "a" / "x"))
    assert torch.equal(again.features(texts), fit_ngrams(texts, seed=3).features(texts))
    monkeypatch.setattr(ngrams, "_FITTED_ON", 50)
    some = [fit_ngrams(texts, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(some[0].axes, some[1].axes)
    assert not torch.equal(some[0].rarity[:20], some[2].rarity[:20])


def test_the_commonest_are_kept(monkeypatch):
    monkeypatch.setattr(ngrams, "_MOST", 5)
    texts = [f"{COMMON[i % 3]} w{i}" for i in range(30)]
    made = fit_ngrams(texts, seed=0)
    count = Counter(bucket for text in texts for bucket in set(hashed([text])[1].tolist()))
    least = sorted(count.values())[-5]
    assert len(made.buckets) == 5
    assert all(count[bucket] >= least for bucket in made.buckets.tolist())


def test_texts_without_words_are_refused():
    with pytest.raises(InputError, match="words in the training texts, but got none in 2"):
        fit_ngrams([" ", "\n"], seed=0)
