"""Where a frozen model lies: a folder, or an id on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mtbkd.errors import need
from mtbkd.files import sha256_of
from mtbkd.inputs.cache import cache_root, share
from mtbkd.types import InputError, refuse

_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
_INDEX, _WEIGHTS = "model.safetensors.index.json", "model.safetensors"
_CONVERTER = "SFconvertbot"  # the hub's own account, which opens pull requests with safetensors
_LARGE = 2**26  # bytes above which a digest is remembered
_SETTLED = 2.0  # seconds after which a change would be seen in the time of modification


@dataclass(frozen=True)
class Wanted:
    """What a model has to be.

    Attributes:
        what: In words, for messages: "a protein language model".
        example: The id of one on the hub.
        extra: Which extra of the package brings what reads it.
        types: Model types as ``config.json`` calls them, and in words; any if not given.
        beside: Files beside the weights that decide what the model says, where they are there.
        needed: Model type to those of them of which one must be there; "" is any other type.
        needed_as: What they are, for messages: "tokenizer".
    """

    what: str
    example: str
    extra: str
    beside: tuple[str, ...]
    needed: Mapping[str, tuple[str, ...]]
    needed_as: str
    types: tuple[tuple[str, ...], str] | None = None


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model, all on disk.

    Attributes:
        source: The path or id that was asked for.
        folder: Where the files are.
        config: The content of ``config.json``.
        weights: Files of safetensors.
        beside: Those of the tokenizer or image processor.
        half: Whether weights are stored in float16.
    """

    source: str
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    beside: tuple[Path, ...]
    half: bool

    @property
    def kind(self) -> str:
        """The type of the model, such as ``esm``."""
        return self.config["model_type"]


def find_model(source: str | Path, wanted: Wanted) -> ModelFiles:
    """The files of a model; an id is downloaded unless it is there already.

    Raises:
        InputError: If it is something else, cannot be fetched, or lacks files.
    """
    name = str(source)
    folder = Path(name).expanduser()
    if not folder.exists():
        if not _ID.fullmatch(name):
            raise InputError(
                f"Expected a folder or a hub id such as {wanted.example}, but there is nothing at "
                f"{name!r}. Correct the path."
            )
        folder = _fetch(name, wanted)
    elif not folder.is_dir():
        raise InputError(
            f"Expected the folder of {wanted.what}, but {name!r} is a file. Name the folder that "
            "holds config.json."
        )
    return _check(name, folder, wanted)


def count_parameters(files: ModelFiles, without: tuple[str, ...] = ()) -> int:
    """Numbers in the files of weights, without reading them; some parts of the model left out."""
    total = 0
    for path in files.weights:
        with safe_open(str(path), "pt") as tensors:
            keys = [k for k in tensors.keys() if not k.removeprefix("esm.").startswith(without)]  # noqa: SIM118
            total += sum(prod(tensors.get_slice(key).get_shape()) for key in keys)
    return total


def digest_of(files: ModelFiles, memory: Path | None) -> str:
    """SHA-256 over everything that decides what a model says: config, tokenizer and weights.

    Digests of large files are kept for next time in the folder ``memory``, with size, times and
    inode of the file; without it all are hashed.
    """
    whole = hashlib.sha256()
    for path in (files.folder / "config.json", *files.beside, *files.weights):
        whole.update(f"{path.name} {_digest(path, memory)}\n".encode())
    return whole.hexdigest()


def first_line(error: BaseException) -> str:
    """The first line of a message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _check(source: str, folder: Path, wanted: Wanted) -> ModelFiles:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        told = "it has none" if isinstance(error, FileNotFoundError) else f"got: {error}"
        raise InputError(
            f"Expected a config.json in the folder of the model {source!r}, but {told}. Name a "
            "folder that save_pretrained wrote."
        ) from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    types, named = wanted.types or ((kind,), wanted.what)
    if not isinstance(kind, str) or kind not in types:
        raise InputError(
            f"Expected {named} at {source!r}, but its config.json says model_type {kind!r}. Choose "
            "another model."
        )
    faults = []
    beside = tuple(path for n in wanted.beside if (path := folder / n).is_file())
    needed = wanted.needed.get(kind, wanted.needed.get("", ()))
    if not {path.name for path in beside} & set(needed):
        faults.append(
            f"Expected the {wanted.needed_as} of the model {source!r} in {' or '.join(needed)}, "
            f"but there is none. Save the {wanted.needed_as} into the model's folder."
        )
    weights, half = _weights(source, folder, faults)
    refuse(*faults)
    return ModelFiles(source, folder, config, weights, beside, half)


def _weights(source: str, folder: Path, faults: list[str]) -> tuple[tuple[Path, ...], bool]:
    names, half = [_WEIGHTS], False
    if (folder / _INDEX).is_file():
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            names = sorted({Path(name).name for name in index["weight_map"].values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            faults.append(
                f"Expected an index of weights in {_INDEX} of the model {source!r}, but got: "
                f"{error!r}. Fetch the file again."
            )
            return (), False
    for name in names:
        if not (folder / name).is_file():
            pickled = sorted(p.name for p in folder.glob("*.bin"))
            instead = f" but {pickled[0]}, which is not opened" if pickled else ""
            faults.append(
                f"Expected weights of the model {source!r} in {name}, but there are none{instead}. "
                "Save the model as safetensors; see docs/backbones.md."
            )
            continue
        try:
            with safe_open(str(folder / name), "pt") as tensors:
                half |= any(tensors.get_slice(k).get_dtype() == "F16" for k in tensors.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            faults.append(
                f"Expected safetensors in {name} of the model {source!r}, but got: "
                f"{first_line(error)}. Fetch the file again."
            )
    return tuple(folder / name for name in names), half


def _fetch(source: str, wanted: Wanted) -> Path:
    """The snapshot of a hub id; the one on disk if it is complete, so that no network is needed."""
    hub = need("huggingface_hub", wanted.extra)
    name, _, revision = source.partition("@")
    note = cache_root() / "converted" / f"{name.replace('/', '--')}.txt"
    version = revision or (note.read_text("utf-8") if note.is_file() else None)

    def snapshot(revision: str | None, **options: bool) -> Path:
        return Path(
            hub.snapshot_download(name, revision=revision, allow_patterns=_WANTED, **options)
        )

    try:
        folder = snapshot(version, local_files_only=True)
        _check(source, folder, wanted)
        return folder
    except Exception:  # not on disk yet, or not whole
        pass
    try:
        folder = snapshot(version)
        if not revision and not any(folder.glob("*.safetensors")):
            if found := _converted(hub, name):
                folder = snapshot(found)
                share(note, found.encode())
    except InputError:
        raise
    except Exception as error:  # the client raises nearly everything for what it cannot reach
        told = first_line(error).removeprefix("Got: ").rstrip(".")
        raise InputError(
            f"Expected the model {source!r} on disk or from the hub, but got: {told}. Check the id "
            "and the network, or name a folder that holds the model."
        ) from None
    return folder


def _converted(hub: Any, name: str) -> str | None:
    """The revision in which the hub's converter offers safetensors of the same weights."""
    for request in hub.get_repo_discussions(name, discussion_type="pull_request"):
        if request.author == _CONVERTER and request.status in ("open", "merged"):
            return f"refs/pr/{request.num}"
    return None


def _digest(path: Path, memory: Path | None) -> str:
    place = path.resolve()
    stat = place.stat()
    seen = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    note = None
    if memory is not None and stat.st_size >= _LARGE:
        note = memory / f"{hashlib.sha256(str(place).encode()).hexdigest()[:32]}.json"
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            if kept["seen"] == seen:
                return kept["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            pass
    found = sha256_of(place)
    if note is not None and time.time() - stat.st_ctime > _SETTLED:
        value = json.dumps({"file": str(place), "seen": seen, "sha256": found})
        share(note, value.encode())
    return found
