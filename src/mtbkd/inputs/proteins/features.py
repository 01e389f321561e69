"""Hand-made numeric features of protein sequences, for models of where a protein goes in a cell.

Everything is computed from the amino-acid letters alone: no pre-trained network, no alignment and
no database. The features of a protein never depend on the other proteins given. Windows of 19
residues above a hydropathy of 1.6 count as membrane-spanning (Kyte & Doolittle 1982).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mtbkd.inputs.proteins.motifs import MOTIFS, count_motifs
from mtbkd.inputs.proteins.residues import Residues
from mtbkd.inputs.proteins.scales import (
    CHARGE,
    EISENBERG,
    HYDROPATHY,
    LETTERS,
    PK,
    PROFILE_SCALES,
    RESIDUE_GROUPS,
    membership,
)
from mtbkd.types import Floats, InputError

_Block = tuple[list[str], Floats]

_CHUNK_RESIDUES = 1 << 18


def _columns(named: Mapping[str, NDArray[np.generic]]) -> _Block:
    return list(named), np.stack([np.asarray(x, dtype=np.float64) for x in named.values()], 1)


def _size_and_composition(r: Residues) -> Iterator[_Block]:
    everywhere = np.ones(len(r.codes), dtype=np.bool_)
    counts = r.counts(everywhere)
    frequency = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    net = r.total(CHARGE[r.codes]) / 1000
    grid = np.linspace(0, 14, 281)
    charge = (1 / (1 + 10 ** (grid - 8.0)) - 1 / (1 + 10 ** (3.1 - grid)))[None, :]
    for letter, (pk, sign) in PK.items():
        ionised = sign / (1 + 10 ** (sign * (grid - pk)))
        charge = charge + counts[:, [LETTERS.index(letter)]] * ionised
    yield _columns({
        "size:log_length": np.log(r.length),
        "size:kiloresidues": np.minimum(r.length, 1000) / 1000,
        "size:isoelectric_point": (charge > 0).sum(1) * 0.05,
        "size:net_charge": np.clip(net, -100, 100),
        "size:net_charge_per_residue": net / r.length,
        "size:entropy": -(frequency * np.log(np.maximum(frequency, 1e-12))).sum(1),
    })  # fmt: skip
    quarter = r.position * 4 // r.length[r.owner]
    regions = {"all": everywhere}
    regions |= {f"first{n}": (r.position > 0) & (r.position <= n) for n in (30, 60)}
    regions |= {f"quarter{n + 1}": quarter == n for n in range(4)}
    for region, where in regions.items():
        names = [f"composition_{region}:{letter}" for letter in LETTERS]
        yield names, r.composition(where)


def _profiles(r: Residues) -> Iterator[_Block]:
    everywhere = np.ones(len(r.codes), dtype=np.bool_)
    for name, scale in PROFILE_SCALES.items():
        value = scale[r.codes]
        mean = r.mean(value, everywhere)
        variance = r.mean(value * value, everywhere) - mean**2
        block = {"mean": mean / 1000, "deviation": np.sqrt(np.maximum(variance, 0)) / 1000}
        for n in range(1, 61, 5):
            block[f"first{n}"] = r.mean(value, (r.position >= n) & (r.position < n + 5)) / 1000
        for n in range(0, 40, 5):
            block[f"last{n}"] = r.mean(value, (r.remaining >= n) & (r.remaining < n + 5)) / 1000
        centred = value / 1000 - mean[r.owner] / 1000
        for lag in range(1, 13):
            product = centred * np.roll(centred, -lag)
            block[f"lag{lag}"] = r.mean(product, r.remaining >= lag)
        yield _columns({f"profile_{name}:{key}": column for key, column in block.items()})


def _hydrophobic_segments(r: Residues) -> Iterator[_Block]:
    hydropathy = HYDROPATHY[r.codes]
    for width in (7, 11, 15, 19, 23):
        mean, whole = r.windows(hydropathy, width)
        mean = mean / 1000
        top = r.largest(mean, whole, -4.5)
        at = r.first(whole & (mean >= top[r.owner]))
        block = {
            "top": top,
            "bottom": -r.largest(-mean, whole, 4.5),
            "top_place": at / r.length,
            "top_from_start": np.log1p(at),
            "top_from_end": np.log1p(r.length - at - 1),
        }
        for n in (20, 35, 60):
            block[f"top_first{n}"] = r.largest(mean, whole & (r.position < n), -4.5)
        inner = whole & (r.position >= 40)
        block["top_after40"] = r.largest(mean, inner, -4.5)
        inner = whole & (r.position >= 60) & (r.remaining >= 40)
        block["top_inner"] = r.largest(mean, inner, -4.5)
        for threshold in (0.5, 1.0, 1.6, 2.2):
            block[f"above{threshold}"] = r.total(whole & (mean > threshold)) / r.length
        yield _columns({f"hydropathy{width}:{key}": column for key, column in block.items()})
    mean, whole = r.windows(hydropathy, 19)
    for threshold in (1200, 1600, 2000):
        high = whole & (mean > threshold)
        begins = high & ~(np.roll(high, 1) & (r.position > 0))
        segments = r.total(begins)
        some, first = segments > 0, r.first(high)
        last = r.largest(r.position.astype(np.float64), high, 0)
        after = r.length - 1 - last
        yield _columns({f"membrane{threshold / 1000}:{key}": column for key, column in {
            "segments": np.log1p(segments), "none": ~some, "one": segments == 1,
            "two_to_four": (segments >= 2) & (segments <= 4), "five_or_more": segments >= 5,
            "seven_or_more": segments >= 7, "covered": np.log1p(r.total(high) / 19),
            "first": np.log1p(first), "starts_early": first < 25, "last_place": last / r.length,
            "after_last": np.where(some, np.log1p(after), 0), "ends_late": some & (after < 39),
            "one_early": (segments == 1) & (first < 25),
        }.items()})  # fmt: skip
    at = r.first(whole & (mean >= r.largest(mean, whole, 0)[r.owner]))[r.owner]
    charge = CHARGE[r.codes]
    before = (r.position >= at - 15) & (r.position < at)
    behind = (r.position >= at + 19) & (r.position < at + 34)
    yield _columns({
        "flank:charge_before": r.total(charge, before) / 1000,
        "flank:charge_behind": r.total(charge, behind) / 1000,
    })  # fmt: skip


def _amphipathy_and_charge(r: Residues) -> Iterator[_Block]:
    for angle, period in ((100, 18), (160, 9)):
        turn = np.deg2rad(angle) * np.arange(period)
        cosine, sine = (np.rint(f(turn) * 1e6).astype(np.int64) for f in (np.cos, np.sin))
        hydrophobicity, phase = EISENBERG[r.codes], r.position % period
        for width in (11, 18):
            along, whole = r.windows(hydrophobicity * cosine[phase], width)
            across, _ = r.windows(hydrophobicity * sine[phase], width)
            moment = np.hypot(along, across) / 1e9
            block = {"mean": r.mean(moment, whole), "top": r.largest(moment, whole, 0)}
            for n in (15, 30, 60):
                block[f"first{n}"] = r.largest(moment, whole & (r.position < n), 0)
            yield _columns({f"moment{angle}_{width}:{key}": x for key, x in block.items()})
    charge, disorder = CHARGE[r.codes], PROFILE_SCALES["disorder"][r.codes]
    block: dict[str, NDArray[np.generic]] = {}
    for width in (10, 20, 50):
        for name, values in (("charge", charge), ("disorder", disorder)):
            mean, whole = r.windows(values, width)
            block[f"{name}{width}:top"] = r.largest(mean, whole, 0) / 1000
            block[f"{name}{width}:bottom"] = -r.largest(-mean, whole, 0) / 1000
            if name == "disorder":
                block[f"{name}{width}:high"] = r.total(whole & (mean > 300)) / r.length
    acidic = membership("DE")[r.codes]
    block["charge_start:first_acidic"] = np.log1p(r.first(acidic > 0))
    for n in (10, 15, 20, 25, 30, 40, 60):
        where = r.position < n
        block[f"charge_start:net{n}"] = r.total(charge, where) / 1000
        block[f"charge_start:R{n}"] = r.total(membership("R")[r.codes], where)
        block[f"charge_start:DE{n}"] = r.total(acidic, where)
        block[f"charge_start:ST{n}"] = r.total(membership("ST")[r.codes], where)
    for n in (10, 20, 40):
        block[f"charge_end:net{n}"] = r.total(charge, r.remaining < n) / 1000
    for letters in (*LETTERS, *RESIDUE_GROUPS):
        for width in (20,) if len(letters) == 1 else (10, 30):
            mean, whole = r.windows(membership(letters)[r.codes], width)
            block[f"richest{width}:{letters}"] = r.largest(mean, whole, 0)
    yield _columns(block)


def _motif_counts(sequences: Sequence[str]) -> _Block:
    return [f"motif:{name}" for name in MOTIFS], np.log1p(count_motifs(sequences))


def _chunk_features(sequences: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
    residues = Residues.of(sequences)
    blocks = [
        *_size_and_composition(residues),
        *_profiles(residues),
        *_hydrophobic_segments(residues),
        *_amphipathy_and_charge(residues),
        _motif_counts([sequence.upper() for sequence in sequences]),
    ]
    names = [name for block, _ in blocks for name in block]
    return names, np.concatenate([values for _, values in blocks], 1).astype(np.float32)


@cache
def feature_names() -> tuple[str, ...]:
    """Names of the columns of `sequence_features`, each "group:detail" and unique."""
    return tuple(_chunk_features(["M"])[0])


def sequence_features(sequences: Sequence[str]) -> NDArray[np.float32]:
    """Turn protein sequences into numbers.

    Args:
        sequences: Proteins in one-letter code, of any length from 1, in either case.
            Selenocysteine (U) counts as C, pyrrolysine (O) as K, J as L; any other letter (X, B,
            Z, ``*``, ...) holds its place without belonging to an amino acid.

    Returns:
        Features, (example, feature), finite, with columns named by `feature_names`. Not
        standardised: see `standardisation`.

    Raises:
        InputError: If a sequence is empty.

    Example:
        >>> sequence_features(["MKKLLFAIPLVVPFYSHSKDEL", "MAS"]).shape[0]
        2
    """
    for index, sequence in enumerate(sequences):
        if not sequence:
            raise InputError(
                f"Expected protein sequences of one letter or more, but got an empty one at index "
                f"{index}. Remove that example or give its sequence."
            )
    parts = [np.empty((0, len(feature_names())), dtype=np.float32)]
    begin, residues = 0, 0
    for index, sequence in enumerate(sequences):
        if index > begin and residues + len(sequence) > _CHUNK_RESIDUES:
            parts.append(_chunk_features(sequences[begin:index])[1])
            begin, residues = index, 0
        residues += len(sequence)
    if begin < len(sequences):
        parts.append(_chunk_features(sequences[begin:])[1])
    return np.concatenate(parts)


def standardisation(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Shift and scale that standardise features, (example, feature), of training proteins only.

    Use as ``clip((features - mean) * scale, -5, 5)``. A column that hardly varies gets scale 0.

    Returns:
        The mean and the scale, each (feature,).
    """
    mean = features.mean(0, dtype=np.float64)
    deviation = features.std(0, dtype=np.float64)
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 0)
    return mean.astype(np.float32), scale.astype(np.float32)
