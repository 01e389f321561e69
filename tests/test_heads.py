"""Heads on frozen features: no answer to a row comes from a head that has seen its label."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from mtbkd.teachers import head_training, heads
from mtbkd.teachers.head_training import Training
from mtbkd.teachers.heads import cross_fitted, group_folds, random_folds
from mtbkd.types import InputError

FAST = Training(hidden=32, epochs=30, batch_size=32, learning_rate=5e-3)


def blobs(n=300, classes=3, width=8, seed=0, gap=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, width, generator=generator) * gap
    features = centres[labels] + torch.randn(n, width, generator=generator)
    return 5 + 100 * features, labels


def accuracy(logits, labels):
    return (logits.argmax(1) == labels).double().mean().item()


def test_heads_that_remember_are_not_asked(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(400, 64, generator=generator)
    labels = torch.randint(2, (400,), generator=generator)
    monkeypatch.setattr(head_training, "_BEST", -torch.inf)  # the last epoch counts, not the best
    found = cross_fitted(
        features,
        labels,
        folds=random_folds(400, 4, 0),
        family="classification",
        n_outputs=2,
        seed=0,
        training=Training(epochs=20, learning_rate=5e-3, batch_size=50),
    )
    assert abs(accuracy(found, labels) - 0.5) < 0.08  # 3.2 standard errors; 0.95 of rows seen


def test_a_row_is_answered_without_its_label():
    features, labels = blobs()
    folds = random_folds(300, 5, 0)
    options = {"folds": folds, "family": "classification", "n_outputs": 3, "seed": 0}
    first = cross_fitted(features, labels, training=FAST, **options)
    assert accuracy(first, labels) > 0.9
    wrong = torch.where(folds == 2, (labels + 1) % 3, labels)
    second = cross_fitted(features, wrong, training=FAST, **options)
    torch.testing.assert_close(second[folds == 2], first[folds == 2])
    assert not torch.allclose(second[folds == 1], first[folds == 1], atol=0.1)


def test_rows_outside_all_folds_get_the_mean_of_all_heads():
    features, labels = blobs()
    folds = random_folds(300, 3, 0)
    folds[:60] = -1
    options = {"family": "classification", "n_outputs": 3, "seed": 4, "training": FAST}
    found = cross_fitted(features, labels, folds=folds, **options)
    assert accuracy(found[:60], labels[:60]) > 0.8
    without = torch.where(folds == -1, -1, labels)
    torch.testing.assert_close(cross_fitted(features, without, folds=folds, **options), found)
    # the same row, once in each fold, is answered by each head in turn
    twins = torch.cat([features[:1].expand(3, -1), features])
    single = cross_fitted(
        twins,
        torch.cat([torch.full((3,), -1), labels]),
        folds=torch.cat([torch.arange(3), folds]),
        **options,
    )
    mean = single[:3].softmax(1).mean(0)
    torch.testing.assert_close(found[0].softmax(0), mean, rtol=0, atol=1e-5)


def test_several_labels_some_of_them_missing():
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(500, 6, generator=generator)
    truth = (features[:, :3] > 0).float()
    labels = truth.masked_fill(torch.rand(500, 3, generator=generator) < 0.3, torch.nan)
    folds = random_folds(500, 4, 1)
    folds[:50] = -1
    found = cross_fitted(
        features, labels, folds=folds, family="multilabel", n_outputs=3, seed=0, training=FAST
    )
    assert found.shape == (500, 3)
    assert ((found > 0) == truth.bool()).double().mean() > 0.9


def test_missing_classes_do_not_count():
    features, labels = blobs()
    folds = random_folds(300, 3, 0)
    options = {"folds": folds, "family": "classification", "n_outputs": 3, "seed": 0}
    missing = labels.clone()
    missing[::3] = -1
    first = cross_fitted(features, missing, training=FAST, **options)
    garbled = features.clone()
    garbled[::3] *= -7.0
    second = cross_fitted(garbled, missing, training=FAST, **options)
    keep = missing >= 0
    torch.testing.assert_close(second[keep], first[keep])
    assert accuracy(first[::3], labels[::3]) > 0.9


def test_the_best_epoch_is_kept_not_the_last(monkeypatch):
    features, labels = blobs(n=200, gap=0.35, width=40)
    score, seen = head_training._score, []

    def watched(*inputs):
        value = score(*inputs)
        if not torch.is_grad_enabled():
            seen.append(value)
        return value

    monkeypatch.setattr(head_training, "_score", watched)
    monkeypatch.setattr(head_training, "_TEMPERATURES", torch.ones(1))
    cross_fitted(
        features,
        labels,
        folds=random_folds(200, 4, 0),
        family="classification",
        n_outputs=3,
        seed=0,
        training=Training(epochs=25, patience=25, learning_rate=1e-2, batch_size=50),
    )
    *epochs, kept = seen
    assert len(epochs) == 25
    best = torch.stack(epochs).amin(0)
    assert (epochs[-1] > best + 0.05).all()
    torch.testing.assert_close(kept, best, rtol=0, atol=2e-4)


def test_a_head_is_done_when_its_patience_is(monkeypatch):
    features, labels = blobs(n=200, gap=0.35, width=40)
    options = {"folds": random_folds(200, 4, 0), "family": "classification", "n_outputs": 3}
    steps, step = [], torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: (steps.append(1), step(self))[1])
    training = Training(epochs=400, patience=3, learning_rate=1e-2, batch_size=200)
    cross_fitted(features, labels, seed=0, training=training, **options)
    assert 3 <= len(steps) < 100


def test_answers_are_as_sure_as_they_are_right():
    features, labels = blobs(n=600, gap=0.5, width=40)
    folds = random_folds(600, 4, 0)
    found = cross_fitted(
        features, labels, folds=folds, family="classification", n_outputs=3, seed=0, training=FAST
    )
    claimed = found.softmax(1).amax(1).mean().item()
    assert abs(claimed - accuracy(found, labels)) < 0.06
    assert cross_entropy(found, labels) < 0.98 * cross_entropy(4 * found, labels)


def test_whole_groups_validate():
    labels = torch.arange(120) % 2
    folds = group_folds([i // 10 for i in range(120)], 4, 0)
    groups = torch.arange(120) // 10
    part = heads._split(labels, folds, 2, groups, 0, 0.15)
    assert not set(groups[part.train].tolist()) & set(groups[part.validation].tolist())
    assert len(part.validation) == 20
    assert set(folds[part.train].tolist()) == {0, 1, 3}
    own = heads._split(labels, folds, 2, folds, 0, 0.15)
    assert len(set(folds[own.validation].tolist())) == 1


def test_the_same_for_a_seed_and_alone_or_beside_others():
    features, labels = blobs()
    options = {"family": "classification", "n_outputs": 3, "training": FAST}
    folds = random_folds(300, 4, 0)
    state = torch.get_rng_state()
    first = cross_fitted(features, labels, folds=folds, seed=0, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, cross_fitted(features, labels, folds=folds, seed=0, **options))
    assert not torch.equal(first, cross_fitted(features, labels, folds=folds, seed=1, **options))


def test_folds_are_even_and_keep_groups_together():
    folds = random_folds(103, 5, 0)
    assert sorted(folds.bincount().tolist()) == [20, 20, 21, 21, 21]
    assert not torch.equal(folds, random_folds(103, 5, 1))
    names = [f"family {i * i % 37}" for i in range(300)]
    folds = group_folds(names, 4, 0)
    assert all(len({int(f) for f, n in zip(folds, names, strict=True) if n == g}) == 1
               for g in set(names))  # fmt: skip
    assert folds.bincount().min() > 60
    with pytest.raises(InputError, match="one for each of 3 groups, but got 4"):
        group_folds(["a", "b", "c"], 4, 0)


def test_what_does_not_fit_is_told_at_once():
    features, labels = blobs(n=20)
    options = {"family": "classification", "n_outputs": 3, "seed": 0}
    with pytest.raises(InputError) as caught:
        cross_fitted(
            features.index_fill(0, torch.tensor([4]), torch.nan),
            labels + 2,
            folds=torch.zeros(20, dtype=torch.int64),
            **options,
        )
    text = str(caught.value)
    assert "between 0 and 2, or -1" in text
    assert "two folds or more" in text
    assert "infinity in row 4" in text
    with pytest.raises(InputError, match="validate the head of fold 0 on, but got 0 and 0"):
        cross_fitted(features, torch.full((20,), -1), folds=torch.arange(20) % 2, **options)
    with pytest.raises(InputError, match=r"shape \(20, 3\) for multilabel"):
        cross_fitted(
            features, labels, folds=torch.arange(20) % 2, **options | {"family": "multilabel"}
        )
    with pytest.raises(InputError, match="classification or multilabel, but got regression"):
        cross_fitted(
            features, labels, folds=torch.arange(20) % 2, **options | {"family": "regression"}
        )
