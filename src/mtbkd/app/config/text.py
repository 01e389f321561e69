"""YAML as people write it: text of bounded size, each key once, plain values alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mtbkd.errors import InputError, shown

_LONGEST = 2**18  # characters
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_DEEPEST, _MOST = 32, 2**16  # levels, and values with repeated parts written out


class _Loader(yaml.SafeLoader):
    """As YAML says, a key comes once; the library takes the last of several."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(key.value)} twice", problem_mark=node.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse(text: str, source: str) -> Any:
    """Parse YAML; where it is from is for messages.

    Raises:
        InputError: If it is not YAML, or too long, too deep or too large to be meant, or holds
            values that are no plain ones.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text):,} characters, more than {_LONGEST:,}")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, 1, {})
        return loader.construct_document(node)
    except RecursionError:
        told = f"more than {_DEEPEST} levels"
    except (yaml.YAMLError, ValueError) as error:
        told = " ".join(str(error).split())
    except (LookupError, TypeError, AttributeError):
        told = "a value that does not fit its tag"
    raise InputError(f"Expected YAML in {source}, but got {told}. Correct it.")


def read(path: Path) -> dict[str, Any]:
    """Read a file that holds a YAML mapping, in UTF-8.

    Raises:
        InputError: If it cannot be read or is not one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(4 * _LONGEST + 1)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InputError(
            f"Expected a configuration file at {path}, but got: {told}. Name a file or a recipe."
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected text in UTF-8 in {path}, but got the byte 0x{data[error.start]:02x} at "
            f"position {error.start}. Save the file as UTF-8."
        ) from None
    value = parse(text, str(path))
    if not isinstance(value, dict):
        raise InputError(
            f"Expected a YAML mapping in {path}, but got {type(value).__name__}. "
            "Start from `mtbkd recipes copy NAME`."
        )
    return value


def _measure(node: yaml.Node, depth: int, sizes: dict[int, int]) -> int:
    """How many values this is, with what is repeated by reference written out, up to the limits."""
    if depth > _DEEPEST:
        raise ValueError(f"more than {_DEEPEST} levels")
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value:
            raise ValueError(f"the character NUL in {shown(node.value)}")
        node.value.encode()  # no half of a pair of surrogates
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = _MOST + 1  # of a part that holds itself
        pairs = (part if isinstance(part, tuple) else (part,) for part in node.value)
        sizes[id(node)] = 1 + sum(_measure(p, depth + 1, sizes) for pair in pairs for p in pair)
    if sizes[id(node)] > _MOST:
        raise ValueError(f"more than {_MOST:,} values")
    return sizes[id(node)]


def seconds_of(value: Any) -> float:
    """Seconds of a duration as people write it: ``90 s``, ``5 min``, ``2 h``, ``5min``.

    Raises:
        ValueError: If it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*(s|min|h)\s*", str(value))
    seconds = 0.0 if found is None else float(found[1]) * _UNITS[found[2]]
    if seconds <= 0:
        raise ValueError("a duration with its unit, such as `90 s`, `5 min` or `2 h`")
    return seconds
