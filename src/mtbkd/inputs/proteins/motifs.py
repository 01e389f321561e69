"""Sorting signals and domain hallmarks: the patterns of PROSITE and ELM, simplified."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# Occurrences are counted without overlap, except those wrapped in a look-ahead, "(?=...)".
MOTIFS: Mapping[str, str] = {
    # Endoplasmic reticulum, Golgi apparatus and the plasma membrane: ends and anchors.
    "er_kdel": r"[KHRDENQS][DENT]EL$", "er_dilysine": r"K.?K..?$", "er_kkxx": r"KK..$",
    "er_hdel_inside": r"[KH]DEL", "prenyl_caax": r"C[^P][AVILMT].$", "prenyl_cc": r"C.{0,3}C.?$",
    "myristoyl": r"^MG[^EDRKHPFYW]..[STAGCN]", "arginine_start": r"^M.{0,4}RR",
    "anchor_start": r"^.{0,25}[LIVFAGMWCTSY]{12,}",
    "anchor_end": r"[LIVFAGMWCTSY]{14,}.{0,12}$",
    "gpi_end": r"[GASDNC][AGSTV].{4,14}[LIVFAGMWCTS]{10,}.{0,3}$",
    "hydrophobic_stretch": r"[LIVFAGMWC]{14,}",
    "dileucine": r"(?=[DE]...L[LI])", "dileucine_end": r"[DE]...L[LI].{0,40}$",
    "tyrosine_sorting": r"(?=Y..[LIVMF])", "npxy": r"NP.Y", "diacidic": r"(?=[DE]{2}.[DE]{2})",
    # Peroxisome.
    "pts1": r"[SACP][KRHNSQ][LMI]$", "pts1_strict": r"[SA][KR]L$", "pts1_loose": r"[SAC].[LM]$",
    "pts2": r"^.{0,40}R[LVIQ]..[LVIHQ][LSGAK].[HQ][LAF]",
    # Signal and transit peptides.
    "signal_axa": r"^.{12,32}[AVSTG].[AGSC]",
    "signal_core": r"^M.{0,8}[KR].{0,4}[LIVAFMWC]{6}",
    "mitochondrial_r2": r"^.{8,70}R.[FYLAS][AST]", "mitochondrial_r3": r"^.{8,70}R[^P][^P]?S",
    "twin_arginine": r"^.{0,60}RR.[FGAVML]", "plastid_vrav": r"[IV].[AC]A",
    # Nuclear import, export and nucleic acids.
    "nls_monopartite": r"(?=K[KR].[KR])", "nls_four": r"(?=[KR]{4})", "basic_three": r"(?=[KR]{3})",
    "nls_loose": r"(?=[KRH]P?[KR][KR].{0,2}[KR])", "nls_bipartite": r"(?=[KR]{2}.{9,13}[KR]{3})",
    "nls_pat7": r"(?=P.{0,3}[KR][KR].?[KR])", "basic_spaced": r"(?=[KR]..[KR]..[KR])",
    "nes": r"(?=L..[LIVFM]..?L.[LIVM])", "rgg": r"(?=RGG)", "sr": r"(?=[SR]RS|SRS)",
    "fg": r"(?=FG)", "fxfg": r"(?=[GF].FG)", "zinc_c2h2": r"(?=C.{2,4}C.{12}H.{3,5}H)",
    "zinc_ring": r"(?=C..C.{9,39}C.H..[CH]..C)", "leucine_zipper": r"(?=L.{6}L.{6}L.{6}L)",
    "dead_box": r"DE[AVIL][DH]", "walker_a": r"G....GK[ST]", "cdk_site": r"(?=SP.[KR])",
    "ck2_site": r"(?=[ST]..[DE])", "pka_site": r"(?=R[RK].[ST])",
    # Secreted and extracellular.
    "glycosylation": r"(?=N[^P][ST][^P])", "glycosylation_t": r"(?=N[^P]T)", "rgd": r"RGD",
    "cxxc": r"(?=C..C)", "cxc": r"(?=C.C)", "cxxxc": r"(?=C...C)", "egf": r"(?=C.C.{5}G..C)",
    "collagen": r"(?=GP.GP)", "glycine_repeat": r"(?=G..G..G)", "gxg": r"(?=G[GYF]G)",
    # Domains and low complexity.
    "ww": r"(?=PP.Y)", "sh3": r"(?=P..P)", "gpcr_dry": r"DRY", "leucine_repeat": r"(?=L..L.L..N)",
    "wd40": r"(?=[LIVM]{2}.[GSD][SA].[DN].{2,3}[LIVM].[LIVM]W)",
    "ankyrin": r"(?=G.TPL[HM]|TPLH.A)", "aromatic_pair": r"[FW]..[LIVM][FW]",
    "gg": r"GG", "nq": r"N[QN]", "ppp": r"(?=PPP)", "qqq": r"(?=QQQ)", "sss": r"(?=SSS)",
    "acidic_four": r"(?=[DE]{4})",
}  # fmt: skip
_COMPILED = tuple(re.compile(pattern, re.DOTALL) for pattern in MOTIFS.values())


def count_motifs(sequences: Sequence[str]) -> NDArray[np.float64]:
    """How often each motif occurs in each sequence, in capitals: (protein, motif)."""
    return np.array(
        [[sum(1 for _ in motif.finditer(s)) for motif in _COMPILED] for s in sequences],
        dtype=np.float64,
    )
