"""The run directory: opened, checked, closed."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mtbkd.app.config.run import RunConfig, load_config
from mtbkd.files import save_json
from mtbkd.types import InputError

_CONFIG, _MANIFEST = "config.yaml", "manifest.json"


def open_run(out: Path, config: RunConfig) -> None:
    """Make the folder of a run, or check that it holds an unfinished run of the same config.

    A configuration of which nothing was made yet may be replaced.

    Raises:
        InputError: If it cannot be written to, or holds something else.
    """
    path = out / _CONFIG
    try:
        if path.exists():
            if path.read_text(encoding="utf-8") == config.to_yaml():
                return
            if any(p.is_file() and p != path for p in out.rglob("*") if _is_foreign(p)):
                raise InputError(
                    f"Expected {out} to be new or a run of the same configuration, "
                    "but its config.yaml differs. Choose another --out or delete "
                    "it."
                )
        elif out.exists() and (not out.is_dir() or any(map(_is_foreign, out.iterdir()))):
            raise InputError(
                f"Expected {out} to be new or a run, but it holds something else. "
                "Choose another --out."
            )
        out.mkdir(parents=True, exist_ok=True)
        partial = out / f".{_CONFIG}.partial"
        partial.write_text(config.to_yaml(), encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        raise InputError(
            f"Expected to write to {out}, but got: {error.strerror or error}. Choose another --out."
        ) from None


def read_run(out: Path, *needed: str) -> RunConfig:
    """The configuration of a run that has these artefacts.

    Raises:
        InputError: If it is no run, or one that is not so far.
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
    return load_config(out / _CONFIG)


def close_run(
    out: Path, config: RunConfig, classes: tuple[str, ...], facts: dict[str, Any]
) -> None:
    """Write the manifest: versions, seed, classes, hashes of what was written, and costs."""
    files = sorted(
        p
        for p in out.rglob("*")
        if p.is_file() and not p.name.startswith(".") and p.name not in (_MANIFEST, _CONFIG)
    )
    packages = ("mtbkd", "torch", "numpy", "scikit-learn", "safetensors", "pyarrow")
    # ru_maxrss is in kibibytes, but in bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    save_json(
        out / _MANIFEST,
        {
            "recipe": config.recipe,
            "seed": config.seed,
            "classes": classes,
            "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
            "sha256": {str(p.relative_to(out)): _hash(p) for p in files},
            "peak_memory_bytes": peak,
            **facts,
        },
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the run's JSON files.

    Raises:
        InputError: If it is missing or cut short.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected JSON in {path}, but got: {error}. Delete it and run the command again."
        ) from None


def _is_foreign(path: Path) -> bool:
    """Whether this is something else than a file that a killed run was about to write."""
    return not path.name.endswith(".partial")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
