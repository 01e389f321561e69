"""Amino-acid scales, as integers so that running sums are exact.

Sources: hydropathy, Kyte & Doolittle (1982) J. Mol. Biol. 157:105-132; hydrophobicity for helical
moments, Eisenberg et al. (1984) J. Mol. Biol. 179:125-142; helix and strand propensities, Chou &
Fasman (1978) Adv. Enzymol. 47:45-148; residue volumes, Zamyatnin (1972) Prog. Biophys. Mol. Biol.
24:107-123; disorder propensity, TOP-IDP, Campen et al. (2008) Protein Pept. Lett. 15:956-963;
side-chain pK values, Bjellqvist et al. (1993) Electrophoresis 14:1023-1031, rounded.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mtbkd.types import Ints

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(LETTERS)


def _scale(values: Sequence[float], *, standardised: bool = True) -> Ints:
    """A residue scale in thousandths, as integers so that running sums are exact. Unknown is 0."""
    scale = np.array(values, dtype=np.float64)
    if standardised:
        scale = (scale - scale.mean()) / scale.std()
    return np.append(np.rint(scale * 1000), 0).astype(np.int64)


# In the order of LETTERS:      A C D E F G H I K L M N P Q R S T V W Y
_KYTE_DOOLITTLE = (1.8, 2.5, -3.5, -3.5, 2.8, -0.4, -3.2, 4.5, -3.9, 3.8,
                   1.9, -3.5, -1.6, -3.5, -4.5, -0.8, -0.7, 4.2, -0.9, -1.3)  # fmt: skip
_EISENBERG = (0.62, 0.29, -0.90, -0.74, 1.19, 0.48, -0.40, 1.38, -1.50, 1.06,
              0.64, -0.78, 0.12, -0.85, -2.53, -0.18, -0.05, 1.08, 0.81, 0.26)  # fmt: skip
_CHARGE = (0, 0, -1, -1, 0, 0, 0.1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)
_HELIX = (1.42, 0.70, 1.01, 1.51, 1.13, 0.57, 1.00, 1.08, 1.16, 1.21,
          1.45, 0.67, 0.57, 1.11, 0.98, 0.77, 0.83, 1.06, 1.08, 0.69)  # fmt: skip
_STRAND = (0.83, 1.19, 0.54, 0.37, 1.38, 0.75, 0.87, 1.60, 0.74, 1.30,
           1.05, 0.89, 0.55, 1.10, 0.93, 0.75, 1.19, 1.70, 1.37, 1.47)  # fmt: skip
_VOLUME = (88.6, 108.5, 111.1, 138.4, 189.9, 60.1, 153.2, 166.7, 168.6, 166.7,
           162.9, 114.1, 112.7, 143.8, 173.4, 89.0, 116.1, 140.0, 227.8, 193.6)  # fmt: skip
_DISORDER = (0.06, 0.02, 0.192, 0.736, -0.697, 0.166, 0.303, -0.486, 0.586, -0.326,
             -0.397, 0.007, 0.987, 0.318, 0.18, 0.341, 0.059, -0.121, -0.884, -0.51)  # fmt: skip

HYDROPATHY = _scale(_KYTE_DOOLITTLE, standardised=False)
EISENBERG = _scale(_EISENBERG, standardised=False)
CHARGE = _scale(_CHARGE, standardised=False)
PROFILE_SCALES: Mapping[str, Ints] = {
    "hydropathy": _scale(_KYTE_DOOLITTLE),
    "charge": CHARGE,
    "helix": _scale(_HELIX),
    "strand": _scale(_STRAND),
    "volume": _scale(_VOLUME),
    "disorder": _scale(_DISORDER),
}
# Side-chain pK values, and the sign of the charged form.
PK: Mapping[str, tuple[float, int]] = {
    "D": (3.9, -1), "E": (4.07, -1), "C": (8.18, -1), "Y": (10.46, -1),
    "H": (6.04, 1), "K": (10.54, 1), "R": (12.48, 1),
}  # fmt: skip
RESIDUE_GROUPS = ("KR", "DE", "ST", "NQ", "FWY", "ILMV", "DEKR", "GP")


def _letter_table() -> Ints:
    table = np.full(256, UNKNOWN, dtype=np.int64)
    for index, letter in enumerate(LETTERS):
        table[[ord(letter), ord(letter.lower())]] = index
    for letter, substitute in (("U", "C"), ("O", "K"), ("J", "L")):
        table[[ord(letter), ord(letter.lower())]] = LETTERS.index(substitute)
    return table


TABLE = _letter_table()
"""Letter codes by ASCII value; unknown letters share one that belongs to no amino acid."""


def membership(letters: str) -> Ints:
    """1 for the letters given, 0 for the others and for unknown ones."""
    return np.array([letter in letters for letter in LETTERS] + [False]).astype(np.int64)
