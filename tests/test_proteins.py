"""Protein features: independent of one another, defined for any sequence, true to their names."""

import numpy as np
import pytest

from mtbkd.proteins.features import feature_names, sequence_features, standardisation
from mtbkd.types import InputError

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))


@pytest.fixture(scope="module")
def proteins() -> list[str]:
    rng = np.random.default_rng(4)
    return ["".join(rng.choice(LETTERS, size=n)) for n in (1, 2, 18, 19, 20, 60, 400, 3000)]


def column(features, name):
    return features[:, feature_names().index(name)]


def test_features_do_not_depend_on_the_other_proteins(proteins):
    together = sequence_features(proteins)
    alone = np.concatenate([sequence_features([p]) for p in proteins])
    np.testing.assert_array_equal(together, alone)
    assert together.shape == (8, len(feature_names()))
    assert len(set(feature_names())) == len(feature_names())


def test_any_letter_and_any_case_gives_finite_features():
    odd = sequence_features(["X", "*", "BZUOJ", "mkv", "MKV"])
    assert np.isfinite(odd).all()
    np.testing.assert_array_equal(odd[3], odd[4])


def test_composition_is_the_root_of_frequencies():
    found = sequence_features(["AAKW"])
    assert column(found, "composition_all:A")[0] == pytest.approx(np.sqrt(0.5))
    assert column(found, "composition_all:D")[0] == 0


def test_signals_are_found_where_they_are():
    kdel, skl = "M" + "G" * 60 + "KDEL", "M" + "G" * 60 + "SKL"
    found = sequence_features([kdel, skl])
    assert column(found, "motif:er_kdel").tolist() == [pytest.approx(np.log(2)), 0]
    assert column(found, "motif:pts1_strict").tolist() == [0, pytest.approx(np.log(2))]


def test_membrane_segments_are_counted():
    segment, loop = "L" * 22, "DEKSN" * 8
    found = sequence_features([loop + segment + loop, loop + segment + loop + segment + loop])
    segments = np.expm1(column(found, "membrane1.6:segments"))
    np.testing.assert_allclose(segments, [1, 2], rtol=1e-5)


def test_an_empty_sequence_is_named():
    with pytest.raises(InputError, match="got an empty one at index 1"):
        sequence_features(["MK", ""])


def test_standardisation_leaves_out_constant_columns():
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(5, 3, 500), np.full(500, 2.0)]).astype(np.float32)
    mean, scale = standardisation(features)
    scaled = (features - mean) * scale
    assert scaled[:, 0].std() == pytest.approx(1, abs=1e-3)
    assert (scaled[:, 1] == 0).all()
