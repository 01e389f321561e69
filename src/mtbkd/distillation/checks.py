"""What must fit together before a student is trained."""

from __future__ import annotations

import torch

from mtbkd.data import Dataset
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.student.student import Student
from mtbkd.training import TrainingSet
from mtbkd.types import InputError


def check_families(data: Dataset, teachers: TeacherOutputs, calibration: Dataset | None) -> None:
    """Refuse teachers or calibration examples of another family, or other names, than the data's.

    Raises:
        InputError: With a message for each fault.
    """
    faults = []
    if teachers.family != data.family:
        faults.append(
            f"Expected teachers for {data.family}, as the data, but got {teachers.family}. Declare "
            "the family of both."
        )
    if teachers.classes != data.classes:
        faults.append(
            f"Expected teachers aligned to {', '.join(data.classes)}, but got "
            f"{', '.join(teachers.classes)}. Align them to the data's names, in its order."
        )
    if calibration is not None and (calibration.family, calibration.classes) != (
        data.family,
        data.classes,
    ):
        faults.append(
            "Expected calibration examples of the same family and names as the data, but got "
            f"{calibration.family} with {', '.join(calibration.classes)}. Make them alike."
        )
    if faults:
        raise InputError(*faults)


def check_outputs(student: Student, training: TrainingSet, classes: tuple[str, ...]) -> None:
    """Refuse a network that has not as many outputs as there are names.

    Raises:
        InputError: If it has more or fewer.
    """
    position = torch.zeros_like(student.prior_mean)
    some = training.features[:2].to(position.device)
    shape = tuple(student.logits(position, some).shape)
    outcome = OUTCOMES[training.observation.family]
    if shape != (len(some), outcome.n_outputs * len(classes)):
        raise InputError(
            f"Expected a network that maps {len(classes)} {outcome.mapping}, but got outputs of "
            f"shape {shape}. Change its last layer."
        )
