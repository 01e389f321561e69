"""What a language model is asked about a row: a template, examples, and how classes are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

from mtbkd.types import InputError

Row = Mapping[str, str]
"""Cells of a row by column."""

NO_YES = (("No",), ("Yes",))
"""How one question for each of several labels is answered."""
LABEL = "label"
"""What a template calls the label that is asked about."""


class Shot(NamedTuple):
    """A row whose labels the model is shown; the student never sees them.

    Attributes:
        row: Its cells.
        says: Its class, or all labels that it has.
    """

    row: Row
    says: tuple[str, ...]


class Turn(NamedTuple):
    """What is asked, and how it is answered; the last turn of a question has no answer."""

    asked: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """How rows become questions.

    Attributes:
        template: In Jinja, sandboxed: ``{{ text }}`` is the cell of the column ``text``. Of several
            labels, ``{{ label }}`` is the one that is asked about.
        classes: The classes, of which one is true, or the labels, of which any may be.
        texts: How each class may be said, one text or more; of several labels what each is called
            in its question, one text.
        exclusive: Whether one class is true.
        shots: Examples that are shown before each question.
        system: What the model is told first; nothing if empty.

    Raises:
        InputError: If the template is none, or texts cannot be told apart.
    """

    template: str
    classes: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    exclusive: bool = True
    shots: tuple[Shot, ...] = ()
    system: str = ""

    def __post_init__(self) -> None:
        """Check template and texts."""
        variables_of(self.template)
        if not self.exclusive:
            return
        said = [text for texts in self.texts for text in texts]
        for text in said:
            longer = next((t for t in said if t is not text and t.startswith(text)), None)
            if longer is not None or not text.strip():
                raise InputError(
                    f"Expected texts of classes of which none begins another, but got {text!r} and "
                    f"{longer!r}. Say one of them in other words."
                )

    @property
    def answers(self) -> tuple[tuple[str, ...], ...]:
        """The texts of each alternative: the classes, or no and yes."""
        return self.texts if self.exclusive else NO_YES

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that is asked."""
        told = [self.template, self.classes, self.texts, self.exclusive, self.system]
        told.append([[dict(shot.row), shot.says] for shot in self.shots])
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def questions(self, row: Row) -> list[tuple[Turn, ...]]:
        """What is asked about a row: one question, or one for each label; examples come first.

        Raises:
            InputError: If the template reads what the row has not.
        """
        names = (None,) if self.exclusive else self.classes
        return [(*self._shown(name), Turn(self._render(row, name), "")) for name in names]

    @cache  # noqa: B019 - a prompt lives as long as its teacher
    def _shown(self, label: str | None) -> tuple[Turn, ...]:
        turns = []
        for shot in self.shots:
            alternative = int(label in shot.says) if label else self.classes.index(shot.says[0])
            turns.append(Turn(self._render(shot.row, label), self.answers[alternative][0]))
        return tuple(turns)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def _render(self, row: Row, label: str | None) -> str:
        import jinja2

        cells = dict(row)
        if label is not None:
            cells[LABEL] = self.texts[self.classes.index(label)][0]
        try:
            return _compiled(self.template).render(cells)
        except jinja2.TemplateError as error:
            raise InputError(
                f"Expected a template that reads columns of the rows, but got: {error}. The "
                f"columns are {', '.join(map(str, row))}."
            ) from None


def variables_of(template: str) -> set[str]:
    """What a template reads.

    Raises:
        InputError: If it is no template.
    """
    from jinja2 import TemplateSyntaxError, meta

    try:
        tree = _environment().parse(template)
    except TemplateSyntaxError as error:
        raise InputError(
            f"Expected a template of Jinja, but got: {error} (line {error.lineno}). Correct it."
        ) from None
    return meta.find_undeclared_variables(tree)


def as_text(question: Sequence[Turn], system: str = "") -> tuple[str, str]:
    """A question as plain text for models without a chat template, and what stands before answers.

    Examples and their answers come first, an empty line behind each. Space at the end of what is
    asked stands before the answer, one blank if there is none.
    """
    parts = [system.rstrip() + "\n\n"] if system else []
    *shown, last = question
    for turn in shown:
        asked, gap = _parted(turn.asked)
        parts.append(f"{asked}{gap}{turn.answer}\n\n")
    asked, gap = _parted(last.asked)
    return "".join(parts) + asked, gap


def as_messages(question: Sequence[Turn], system: str = "") -> list[dict[str, str]]:
    """A question as messages of a chat, examples as turns before it."""
    found = [{"role": "system", "content": system}] if system else []
    for turn in question:
        found.append({"role": "user", "content": turn.asked.rstrip()})
        if turn.answer:
            found.append({"role": "assistant", "content": turn.answer})
    return found


def choose_shots(labels: Sequence[Iterable[str]], order: Iterable[int], most: int) -> list[int]:
    """Which labelled rows are shown: in turn one of each class, or set of labels, in this order.

    Args:
        labels: What is true of each row; empty where that is not known.
        order: Rows by chance.
        most: How many at most.
    """
    queues: dict[tuple[str, ...], list[int]] = {}
    for row in order:
        if said := tuple(labels[row]):
            queues.setdefault(said, []).append(row)
    chosen: list[int] = []
    waiting = list(queues.values())
    while waiting and len(chosen) < most:
        chosen += [queue.pop(0) for queue in waiting][: most - len(chosen)]
        waiting = [queue for queue in waiting if queue]
    return chosen


def _parted(asked: str) -> tuple[str, str]:
    bare = asked.rstrip()
    return bare, asked[len(bare) :] or " "


@cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _compiled(template: str) -> Any:
    return _environment().from_string(template)
