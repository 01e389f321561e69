"""What training costs: CPU seconds, kept beside what they were spent on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import process_time
from typing import Any

from mtbkd.files import AGAIN, read_sealed, save_sealed
from mtbkd.types import Report

TRAINING = "training.json"
"""The file that tells what each stage of training took."""
_SECONDS = 1.0  # of CPU time until they are written down


def metered(out: Path, report: Report | None) -> Report:
    """The same report, which also writes ``training.json``: CPU seconds of each stage it is told.

    What an earlier process has spent on a stage that goes on is added; a stage that starts over is
    counted anew, and one that is read back stays as it was.

    Args:
        out: The run directory.
        report: Told as before.
    """
    spent, last = training_seconds(out), process_time()
    saved = last

    def told(stage: str, done: int, total: int) -> None:
        nonlocal last, saved
        now = process_time()
        spent[stage] = 0.0 if done == 0 else spent.get(stage, 0.0) + now - last
        last = now
        if done == total or now - saved > _SECONDS:
            saved = now
            seconds = {name: round(value, 3) for name, value in spent.items()}
            save_sealed(out / TRAINING, {"cpu_seconds": seconds})
        if report is not None:
            report(stage, done, total)

    return told


def training_seconds(out: Path) -> dict[str, float]:
    """CPU seconds by stage of training, as far as they are known.

    Raises:
        InputError: If the file was changed.
    """
    path = out / TRAINING
    return read_sealed(path, AGAIN, "cpu_seconds")["cpu_seconds"] if path.exists() else {}


def cpu_seconds(spent: dict[str, float], baselines: dict[str, Iterable[str]]) -> dict[str, Any]:
    """CPU seconds of training the student and each baseline, all that is chosen included.

    Args:
        spent: By stage, as `training_seconds` reads them.
        baselines: The stages of each baseline.

    Returns:
        ``choices`` of the prior, ``modes`` and ``sampling`` of the student, and ``baselines`` by
        name; without what is not known.

    Example:
        >>> cpu_seconds({"prior-1": 2.0, "modes": 1.0, "kd-1": 3.0, "kd-4": 4.0}, {"KD": ["kd-1", "kd-4"]})
        {'choices': 2.0, 'modes': 1.0, 'baselines': {'KD': 7.0}}
    """  # noqa: E501
    rounds = [stage for stage in spent if stage.startswith("sampling, round")]
    if rounds:
        drawn = {"sampling": sum(spent[stage] for stage in rounds)}
        spent = drawn | {stage: s for stage, s in spent.items() if stage not in rounds}
    of_baselines = {name: list(stages) for name, stages in baselines.items()}
    others = {"modes", "sampling"}.union(*of_baselines.values())
    return {
        "choices": round(sum(s for stage, s in spent.items() if stage not in others), 3),
        **{stage: spent[stage] for stage in ("modes", "sampling") if stage in spent},
        "baselines": {
            name: round(sum(spent[stage] for stage in stages), 3)
            for name, stages in of_baselines.items()
            if all(stage in spent for stage in stages)
        },
    }
