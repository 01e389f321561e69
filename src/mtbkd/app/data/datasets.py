"""The public data sets: where they come from, on which terms, and where they are put."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_dir

from mtbkd.app.data import cifar10h, deeploc2
from mtbkd.app.data.fetching import Patience, Report, fetch
from mtbkd.types import InputError

_PAPER = "https://raw.githubusercontent.com/AnonymousSub1/MTBKD"
_ALPS = "https://raw.githubusercontent.com/forest-snow/alps"
_VOTES = "https://raw.githubusercontent.com/jcpeterson/cifar-10h"
_LABEL_ERRORS = "https://raw.githubusercontent.com/cleanlab/label-errors"
_CIFAR = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_DTU = "https://services.healthtech.dtu.dk/services/DeepLoc-2.0/data"


@dataclass(frozen=True)
class Source:
    """A file on the web.

    Attributes:
        name: On disk.
        url: Where it comes from.
        sha256: Of its bytes; None where `DataSet.convert` checks what it holds.
    """

    name: str
    url: str
    sha256: str | None


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        name: On the command line.
        summary: What it holds.
        megabytes: To download.
        terms: On which it may be used.
        folder: Its name under the root of all data.
        sources: What is fetched.
        files: What is there in the end.
        convert: Makes files from the first that was fetched, which is then removed.
        is_whole: Whether a folder holds the files as they should be, where they are converted.
    """

    name: str
    summary: str
    megabytes: float
    terms: str
    folder: str
    sources: tuple[Source, ...]
    files: tuple[str, ...]
    convert: Callable[[Path, Path], None] | None = None
    is_whole: Callable[[Path], bool] = lambda _: False


def _paper(commit: str, path: str, sha256: str) -> Source:
    return Source(path.rpartition("/")[2], f"{_PAPER}/{commit}/{path}", sha256)


def _news(part: str, sha256: str) -> Source:
    commit = "43232f234087cdbb4b06cd0e3997460610a0dbfd"
    return Source(f"agnews_{part}.tsv", f"{_ALPS}/{commit}/data/agnews/{part}.tsv", sha256)


_PAPER_SOURCES = (
    _paper(
        "9f64bf4a937f293059ff05c37262c3437e2c88d2",
        "data/data_our_train_sample.csv",
        "01e04b578e5d2134b6dace322ae34d13684667f315fb6e15206ba5d9316cb524",
    ),
    _paper(
        "ab4312562d3a545fa24a11e538e5fcddb35a776d",
        "data/data_our_test.csv",
        "61d00d6d2b70871157d02d9b0e7a2d66256faacbf99a11bf01de5b2c3385e710",
    ),
    _paper(
        "ab4312562d3a545fa24a11e538e5fcddb35a776d",
        "data/data_MuLabel_sub.csv",
        "8b44673dd972d880c235bcb1aeb65be62d77544c03bff6d5328615e3d89fcd34",
    ),
    _paper(
        "a685cf2fd84b977f5ca5c60afac100587a1b8416",
        "teacher_pred_prob/ESM_650M_probs_sample.csv",
        "dd16e0e9a0c48a9784a39bff13ce0d82b1c42e46afdf86f6246138d11f8a7650",
    ),
    _paper(
        "a685cf2fd84b977f5ca5c60afac100587a1b8416",
        "teacher_pred_prob/ESM_650M_probs_test.csv",
        "a3f016127648d1cd8bf91990050e71cf3ee68a15254a238b6973d423909d3b83",
    ),
    _paper(
        "a685cf2fd84b977f5ca5c60afac100587a1b8416",
        "teacher_pred_prob/T5_probs_sample.csv",
        "12aa932d1561d4c7e64149dcff2ea8f6d409a823e49420cbe77d58c2d53d99cc",
    ),
    _paper(
        "a685cf2fd84b977f5ca5c60afac100587a1b8416",
        "teacher_pred_prob/T5_probs_test.csv",
        "fb87c0d6c72e3c74c0266401a97556d72895051b45d8a7236b686a2cb4f2f57d",
    ),
)

DATASETS = {
    each.name: each
    for each in (
        DataSet(
            name="deeploc",
            summary="2,500 + 1,000 proteins in ten locations with the outputs of two teachers, and "
            "2,000 in several locations: the files of the paper.",
            megabytes=4.1,
            terms="Files of the paper's authors (github.com/AnonymousSub1/MTBKD), who state no "
            "licence: ask them before you pass the files on. Sequences are from UniProt, CC BY "
            "4.0.",
            folder="deeploc2_mtbkd",
            sources=_PAPER_SOURCES,
            files=tuple(source.name for source in _PAPER_SOURCES),
        ),
        DataSet(
            name="deeploc2",
            summary="28,303 proteins, each in one or more of ten locations, in five partitions "
            "without close relatives: the training set of DeepLoc 2.0.",
            megabytes=18,
            terms="Training data of DeepLoc 2.0, DTU Health Tech (services.healthtech.dtu.dk), for "
            "academic use; cite Thumuluri et al. 2022, doi:10.1093/nar/gkac278. Sequences are "
            "from UniProt, CC BY 4.0.",
            folder="deeploc2_full",
            sources=(
                Source(
                    ".Swissprot_Train_Validation_dataset.csv",
                    f"{_DTU}/Swissprot_Train_Validation_dataset.csv",
                    None,
                ),
            ),
            files=tuple(map(deeploc2.partition_file, range(deeploc2.PARTITIONS))),
            convert=deeploc2.convert,
            is_whole=deeploc2.is_whole,
        ),
        DataSet(
            name="news",
            summary="AG News: 10,001 news of the training set and the 7,600 of the test set, each "
            "World, Sports, Business or Sci/Tech.",
            megabytes=3.6,
            terms="AG's corpus of news articles, for research; cite Zhang et al. 2015, "
            "arXiv:1509.01626. The files are those of github.com/forest-snow/alps (MIT).",
            folder="text",
            sources=(
                _news("dev", "7a0811e0006080bf4de17752c5466450ff3db778be71bc5bcf3c4e99b5f0803d"),
                _news("test", "e4217edd939f618f24a42b0988c56ec3cddf656d8dc279b9afa443dd1ab6a1c1"),
            ),
            files=("agnews_dev.tsv", "agnews_test.tsv"),
        ),
        DataSet(
            name="cifar10h",
            summary="CIFAR-10H: the 10,000 test images of CIFAR-10, votes of about 51 people on "
            "each, and out-of-sample probabilities of a network.",
            megabytes=171,
            terms="CIFAR-10 (Krizhevsky 2009) states no licence. Votes are CC BY-NC-SA 4.0; cite "
            "Peterson et al. 2019, arXiv:1908.07086. The network's probabilities are of "
            "github.com/cleanlab/label-errors; cite Northcutt et al. 2021, arXiv:2103.14749.",
            folder="cifar10h",
            sources=(
                Source(
                    ".cifar-10-binary.tar.gz",
                    _CIFAR,
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
                Source(
                    cifar10h.COUNTS,
                    f"{_VOTES}/597cbc5f07266c9405b830ee4a53463539124c4f/data/cifar10h-counts.npy",
                    cifar10h.SHA256[cifar10h.COUNTS],
                ),
                Source(
                    cifar10h.NETWORK,
                    f"{_LABEL_ERRORS}/b1e4a9a46883dfd10c4c8cb09a741c671d05f95e/"
                    "cross_validated_predicted_probabilities/cifar10_test_set_pyx.npy",
                    cifar10h.SHA256[cifar10h.NETWORK],
                ),
            ),
            files=(cifar10h.IMAGES, *cifar10h.SHA256),
            convert=cifar10h.convert,
            is_whole=cifar10h.is_whole,
        ),
    )
}


def data_root(configured: str | Path | None = None) -> Path:
    """Where all data sets are: what is configured, else ``$MTBKD_DATA``, else a folder of the user.

    The last is where the operating system keeps the data of programs, such as
    ``~/.local/share/mtbkd``.
    """
    chosen = configured or os.environ.get("MTBKD_DATA")
    return Path(chosen).expanduser() if chosen else Path(user_data_dir("mtbkd", appauthor=False))


def terms(name: str) -> str:
    """What a data set is, and on which terms it may be used.

    Raises:
        InputError: If there is no such data set.
    """
    data = _find(name)
    return f"{name}: {data.summary}\nTerms: {data.terms}"


def get(
    name: str,
    to: str | Path | None = None,
    *,
    say: Callable[[str], None] = print,
    report: Report | None = None,
    patience: Patience | None = None,
) -> Path:
    """Fetch and check a data set, unless it is there; the terms are said first.

    ``to`` is the root of all data, as `data_root` takes it.

    Returns:
        The folder of the data set.

    Raises:
        InputError: If there is no such data set, or it cannot be fetched, or is not what it was.
            Files that are whole stay; nothing is left half-written under its final name.
    """
    data = _find(name)
    folder = data_root(to) / data.folder
    say(terms(name))
    if data.is_whole(folder):
        return folder
    for source in data.sources:
        fetch(source.url, folder / source.name, source.sha256, patience, report)
    if data.convert is not None:
        raw = folder / data.sources[0].name
        try:
            data.convert(raw, folder)
        finally:
            raw.unlink(missing_ok=True)
    return folder


def listing(to: str | Path | None = None) -> str:
    """All data sets: what they hold, how large, on which terms, and where they are or would be."""
    lines = []
    for name, data in DATASETS.items():
        folder = data_root(to) / data.folder
        there = all((folder / file).exists() for file in data.files)
        place = f"in {folder}" if there else f"not there; `mtbkd data get {name}` puts it in"
        indent = " " * 10
        lines += [
            f"{name:10}{data.summary}",
            f"{indent}{data.megabytes:g} MB to download. {data.terms}",
            f"{indent}{place}" + ("" if there else f" {folder}"),
        ]
    return "\n".join(lines)


def _find(name: str) -> DataSet:
    if name not in DATASETS:
        raise InputError(
            f"Expected a data set among {', '.join(DATASETS)}, but got {name!r}. Choose one."
        )
    return DATASETS[name]
