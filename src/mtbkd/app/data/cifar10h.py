"""CIFAR-10's test images from the archive of the data set, as the recipe `cifar10h` reads them."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from mtbkd.files import replacing, sha256_of
from mtbkd.inputs.tables import read_arrays
from mtbkd.types import InputError

IMAGES, COUNTS, NETWORK = "images.npz", "cifar10h-counts.npy", "teacher_cnn_probs.npy"
SHA256 = {
    COUNTS: "9b36b4550349af56c79083356312eb4af856cc5fd3caf1f669d40b9d0bbb69ff",
    NETWORK: "81a38d5a85df9325659de8c062eb26be3b41b9421c7645e91dfc2f1dd58c45c7",
}
LABELS = "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"
"""Of the labels of the test images in their order, one byte each."""

_BATCH, _SHAPE = "cifar-10-batches-bin/test_batch.bin", (3, 32, 32)


def is_whole(folder: Path) -> bool:
    """Whether votes and probabilities are what they should be, beside images in this order.

    Pixels are not compared: where they were once JPEG, they differ a little from the archive's.
    """
    try:
        if any(sha256_of(folder / name) != known for name, known in SHA256.items()):
            return False
        arrays = read_arrays(folder / IMAGES, "images")
        pixels, labels = arrays["images"], arrays["labels"]
    except (OSError, KeyError, InputError):
        return False
    return pixels.shape == (len(labels), 32, 32, 3) and _digest(labels) == LABELS


def convert(source: Path, folder: Path) -> None:
    """Write the test images of the archive as NPZ: ``images`` (image, 32, 32, 3), and ``labels``.

    Raises:
        InputError: If it holds others; nothing is written then.
    """
    try:
        with tarfile.open(source, "r:gz") as archive:
            member = archive.extractfile(_BATCH)
            rows = np.frombuffer(b"" if member is None else member.read(), np.uint8)
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise _other(str(error).strip('"')) from None
    if not len(rows) or len(rows) % 3073:
        raise _other(f"{len(rows):,} bytes")
    rows = rows.reshape(-1, 3073)
    labels, pixels = rows[:, 0].astype(np.int64), rows[:, 1:].reshape(-1, *_SHAPE)
    if _digest(labels) != LABELS:
        raise _other(f"labels with the sha256 {_digest(labels)}")
    with replacing(folder / IMAGES, elsewhere="choose another place with --to") as held:
        with held.open("wb") as file:
            images = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
            np.savez_compressed(file, images=images, labels=labels)


def _digest(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype(np.uint8).tobytes()).hexdigest()


def _other(got: str) -> InputError:
    return InputError(
        f"Expected {_BATCH} of CIFAR-10 in the archive, but got {got}; it was removed. Try again; "
        "if this stays, the file was changed at its source."
    )
