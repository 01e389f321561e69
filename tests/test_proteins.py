"""Protein features: independent of one another, defined for any sequence, true to their names."""

import numpy as np
import pytest

from mtbkd.inputs.proteins.features import feature_names, sequence_features, standardisation
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


LOOP = "DEKSN" * 8
TRANSIT = (
    "MLSRAVRSLARRLSTRAFSRLARSLSR"  # basic, amphipathic, without an acid, as of a mitochondrion
)
SIGNAL = "MKRLLLLALLLLALLLSASA"  # basic, then hydrophobic, then small at -3 and -1


def change(name, before, after):
    found = column(sequence_features([before, after]), name)
    return found[1] - found[0]


@pytest.mark.parametrize(
    ("end", "motif"),
    [
        ("KDEL", "er_kdel"),
        ("HDEL", "er_kdel"),
        ("KKGS", "er_kkxx"),
        ("SKL", "pts1_strict"),
        ("CVLS", "prenyl_caax"),
    ],
)
def test_signals_at_the_end_count_there_only(end, motif):
    body = "M" + "TAGQ" * 20
    assert change(f"motif:{motif}", body, body + end) == pytest.approx(np.log(2))
    assert change(f"motif:{motif}", body, body + end + "TAGQ") == 0


@pytest.mark.parametrize(
    ("signal", "motif"),
    [
        ("PKKKRKV", "nls_monopartite"),
        ("KRPAATKKAGQAKKKK", "nls_bipartite"),
        ("EQDALLPL", "dileucine"),
        ("YQRL", "tyrosine_sorting"),
        ("NATS", "glycosylation"),
    ],
)
def test_signals_inside_are_counted(signal, motif):
    body = "M" + "GAGQ" * 10
    one = change(f"motif:{motif}", body, body + signal + body)
    two = change(f"motif:{motif}", body, body + signal + body + signal + body)
    assert two > one > 0


def test_peroxisomal_signal_at_the_start_counts_there_only():
    signal, body = "RLQVVLGHL", "GAGQ" * 12
    assert change("motif:pts2", "M" + body, "M" + signal + body) > 0
    assert change("motif:pts2", "M" + body, "M" + body + signal) == 0


def test_a_hydrophobic_stretch_is_a_membrane_segment():
    assert change("membrane1.6:segments", LOOP * 2, LOOP + "LIVFALLIVGALLIVFLLA" + LOOP) > 0
    assert change("hydropathy19:top", LOOP * 2, LOOP + "LIVFALLIVGALLIVFLLA" + LOOP) > 3
    assert change("membrane1.6:starts_early", LOOP + "L" * 22 + LOOP, "L" * 22 + LOOP + LOOP) == 1


def test_a_signal_peptide_raises_the_columns_of_the_start():
    plain, secreted = "M" + "DEGQ" * 20, SIGNAL + "DEGQ" * 20
    assert change("motif:signal_core", plain, secreted) > 0
    assert change("motif:signal_axa", plain, secreted) > 0
    assert change("hydropathy11:top_first20", plain, secreted) > 2


def test_a_transit_peptide_raises_charge_and_moment_of_the_start():
    plain, imported = "M" + "GTGQ" * 20, TRANSIT + "GTGQ" * 20
    assert change("charge_start:net20", plain, imported) > 3
    assert change("charge_start:R20", plain, imported) > 3
    assert change("moment100_18:first15", plain, imported) > 0.2
    assert change("motif:mitochondrial_r2", plain, imported) > 0


def test_acids_at_the_start_lower_its_charge():
    assert change("charge_start:net20", TRANSIT, "MDE" + TRANSIT) < -1
    assert change("charge_start:first_acidic", "MDE" + TRANSIT, TRANSIT) > 0


def test_moment_is_that_of_a_helix_and_not_of_a_strand():
    helix = "".join("L" if np.cos(np.deg2rad(100 * i)) > 0 else "K" for i in range(18))
    strand = "LK" * 9
    assert change("moment100_18:top", strand, helix) > 0.3
    assert change("moment160_11:top", strand, helix) < -0.3
