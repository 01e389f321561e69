"""A student in a sentence: what is sampled, and what stays as it was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from mtbkd.student.student import Student

_NAMED = 4
_DROPOUT = nn.modules.dropout._DropoutNd


def summary(student: Student) -> str:
    """What is sampled of a student and what is fixed, on one line for a person.

    Example:
        >>> from mtbkd.student import make_student
        >>> summary(make_student(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), sampled="0.*"))
        'Sampled: 9 of 15 parameters (0.weight, 0.bias). Fixed: 6 parameters (1.weight, 1.bias);
        statistics of 1 normalisation.'
    """
    sampled = {id(student.head.get_parameter(name)) for name in student.names}
    every = {id(p): (name, p.numel()) for name, p in _parameters(student)}
    fixed = [named for key, named in every.items() if key not in sampled]
    n_fixed, n_sampled = sum(size for _, size in fixed), student.n_parameters
    said = f"Sampled: {n_sampled:,} of {n_sampled + n_fixed:,} parameters"
    parts = [f"{n_fixed:,} parameters ({_few([name for name, _ in fixed])})"] if fixed else []
    if fixed:
        said += f" ({_few(student.names)})"
    layers = list({id(layer): layer for layer in _layers(student)}.values())
    kept = [layer for layer in layers if getattr(layer, "running_mean", None) is not None]
    n_dropout = sum(isinstance(layer, _DROPOUT) and layer.p > 0 for layer in layers)
    parts += [f"statistics of {len(kept)} normalisation{'s'[: len(kept) - 1]}"] if kept else []
    parts += ["dropout, which is off"] if n_dropout else []
    return f"{said}. Fixed: {'; '.join(parts) or 'nothing'}."


def _parameters(student: Student) -> Iterator[tuple[str, nn.Parameter]]:
    """All parameters, those of the head by the names it has for them."""
    yield from student.head.named_parameters()
    if student.frozen is not None:
        for name, parameter in student.frozen.named_parameters():
            yield name.removeprefix("network."), parameter


def _layers(student: Student) -> Iterator[nn.Module]:
    yield from student.head.modules()
    if student.frozen is not None:
        yield from student.frozen.modules()


def _few(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
