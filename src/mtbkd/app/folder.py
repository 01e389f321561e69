"""The run directory: opened, checked, closed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtbkd.app.config.run import RunConfig, load_config
from mtbkd.app.config.student import GIVEN
from mtbkd.errors import collect, shown
from mtbkd.files import check_hash, read_sealed, save_sealed, sha256_of, write_bytes
from mtbkd.types import InputError, refuse

_CONFIG, _MANIFEST = "config.yaml", "manifest.json"
JUDGED = ("metrics.json", "predictions.parquet", "evaluation.safetensors")
"""Files that evaluation writes."""
POLICY = "defer.json"
"""The file that says which answers are given alone."""
ASKED = "asked"
"""The folder of what teachers say of new rows, which grows after a run is finished."""
SHOWN = ("report.html", "diagnose.json", "diagnose.svg", "defer.svg")
"""Files that people read, and no command."""


def open_run(out: Path, config: RunConfig) -> None:
    """Make the folder of a run, or check that it holds an unfinished run of the same config.

    A configuration of which nothing was made yet may be replaced.

    Raises:
        InputError: If it cannot be written to, or holds something else.
    """
    path, text = out / _CONFIG, config.to_yaml().encode()
    try:
        if path.exists():
            if path.read_bytes() == text or _is_of(path, config):
                return
            if any(p.is_file() and p != path for p in out.rglob("*") if _is_foreign(p)):
                raise InputError(
                    f"Expected {out} to be new or a run of the same configuration, "
                    "but its config.yaml differs. Choose another --out or delete "
                    "it."
                )
        elif out.exists() and (not out.is_dir() or any(map(_is_foreign, out.iterdir()))):
            raise InputError(
                f"Expected {out} to be new or a run, but it holds something else, and no "
                f"{_CONFIG}. Choose another --out."
            )
    except OSError as error:
        raise InputError(
            f"Expected to write to {out}, but got: {error.strerror or error}. Choose another --out."
        ) from None
    write_bytes(path, text, elsewhere="choose another --out")


def _is_of(path: Path, config: RunConfig) -> bool:
    """Whether a file means this configuration, as one that was written differently may."""
    try:
        return load_config(path).to_yaml() == config.to_yaml()
    except InputError:
        return False


def read_run(out: Path, *needed: str, network: str | None = None) -> RunConfig:
    """The configuration of a run that has these files, as they were written.

    Args:
        out: The run directory.
        *needed: The files.
        network: What the user wrote to have the network of their own run, as ``module:function``
            of a file in the working directory; without it none is.

    Raises:
        InputError: If it is no run, or one that is not so far, or one of the files was changed, or
            it was made with another network.
    """
    if not (out / _CONFIG).exists():
        raise InputError(
            f"Expected a run directory at {out}, but it has no {_CONFIG}. Make one "
            "with `mtbkd run`."
        )
    missing = [name for name in needed if not (out / name).exists()]
    if missing:
        raise InputError(
            f"Expected a finished run in {out}, but {', '.join(missing)} is missing. "
            f"Finish it with `mtbkd run {out}`."
        )
    check_run(out, (_CONFIG, *needed))
    config = load_config(out / _CONFIG)
    if network is None:
        return config
    held = config.student.network
    if held == GIVEN:
        student = config.student.model_copy(update={"network": network})
        config = config.model_copy(update={"student": student})
    elif network != held:
        told = f"--network {held}, with which" if held else "no --network, without which"
        raise InputError(
            f"Expected {told} the run in {out} was made, but got {shown(network)}. Correct it or "
            "leave it out."
        )
    return config.with_code(Path.cwd())


def is_finished(out: Path) -> bool:
    """Whether all stages have run."""
    return (out / _MANIFEST).exists()


def read_manifest(out: Path) -> dict[str, Any]:
    """What `close_run` wrote; hashes by path are under ``sha256``.

    Raises:
        InputError: If it was changed.
    """
    then = f"Delete it and run `mtbkd run {out}`, which makes it."
    return read_sealed(out / _MANIFEST, then, "versions", "seconds", "sha256")


def check_run(out: Path, only: Collection[str] | None = None, *, but: Collection[str] = ()) -> bool:
    """Compare the files of a finished run, ``only`` these or all ``but`` these, with its manifest.

    Files that are missing are left to those that read them, or make them again.

    Returns:
        Whether the run is finished and all of these files are there.

    Raises:
        InputError: With one message for each file that was changed.
    """
    if not is_finished(out):
        return False
    faults, complete = [], True
    for name, digest in read_manifest(out)["sha256"].items():
        if name in but or (only is not None and name not in only):
            continue
        if not (out / name).exists():
            complete = False
            continue
        collect(faults, partial(check_hash, out / name, digest, _mending(out, name)))
    refuse(*faults)
    return complete


def check_place(out: Path, source: Path, answers: Path) -> None:
    """Refuse to write answers over what they are made of.

    Raises:
        InputError: If their place is the source, or a file of the run.
    """
    if not answers.exists():
        return
    own = (out / name for name in (*_written(out), _MANIFEST))
    if any(path.exists() and answers.samefile(path) for path in (source, *own)):
        what = "the input" if source.exists() and answers.samefile(source) else f"a file of {out}"
        raise InputError(
            f"Expected another file to write to, but got {answers}, which is {what}. Choose "
            "another --out."
        )


def _mending(out: Path, name: str) -> str:
    """What to do about a file that was changed."""
    if name == _CONFIG:
        return "Put it back as it was, or start a new run."
    if name == POLICY:
        return f"Make it again with `mtbkd defer {out}`."
    if name in JUDGED:
        return f"Make it again with `mtbkd evaluate {out}`."
    folder, _, inner = name.partition("/")
    what = out / folder if folder == "teachers" and "/" not in inner else "it"
    return f"Delete {what} and run `mtbkd run {out}`, which makes it again."


def reopen_run(out: Path, *again: str) -> None:
    """Take back that a run is finished: what is made of its draws, and ``again``, is made anew.

    Raises:
        InputError: If a file of it was changed.
    """
    check_run(out)
    for name in (_MANIFEST, "samples/manifest.json", *JUDGED, *SHOWN, *again):
        (out / name).unlink(missing_ok=True)


def close_run(
    out: Path, config: RunConfig, classes: tuple[str, ...], facts: dict[str, Any]
) -> None:
    """Write the manifest: versions, seed, classes, hashes of what was written, and costs."""
    packages = ("mtbkd", "torch", "numpy", "scikit-learn", "safetensors", "pyarrow")
    save_sealed(
        out / _MANIFEST,
        {
            "recipe": config.recipe,
            "seed": config.seed,
            "classes": classes,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
            "sha256": {name: sha256_of(out / name) for name in _written(out)},
            "peak_memory_bytes": _peak_memory(),
            **facts,
        },
    )


@contextmanager
def amended(out: Path, *again: str) -> Iterator[None]:
    """Take into the manifest of a finished run what is made inside.

    Hashes of files that are there stay as they are, but for those that are made ``again``.
    """
    before = set(_written(out)) - set(again)
    yield
    if is_finished(out):
        manifest = read_manifest(out)
        hashes = dict(manifest["sha256"])
        made = [name for name in _written(out) if name not in before or name not in hashes]
        hashes |= {name: sha256_of(out / name) for name in made}
        save_sealed(out / _MANIFEST, manifest | {"sha256": dict(sorted(hashes.items()))})


def _written(out: Path) -> list[str]:
    """The run's files by path, but for the manifest and what a killed run was about to write."""
    files = (p for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))
    names = (p.relative_to(out).as_posix() for p in files if p != out / _MANIFEST)
    return sorted(name for name in names if not name.startswith(f"{ASKED}/"))


def _peak_memory() -> int | None:
    """Bytes that this process has used at most, where the system tells."""
    try:
        import resource
    except ImportError:  # on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # elsewhere in kibibytes


def _is_foreign(path: Path) -> bool:
    """Whether this is something else than a file that a killed run was about to write."""
    return not path.name.endswith(".partial")
