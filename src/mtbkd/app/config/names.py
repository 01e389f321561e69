"""Names in a configuration, of classes and teachers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _text(value: Any) -> Any:
    """Whole numbers as text; YAML reads a bare ``yes`` or ``off`` as true or false."""
    if isinstance(value, bool):
        raise ValueError(f"text; write '{'yes' if value else 'no'}' in quotes if that is its name")
    return str(value) if isinstance(value, int) else value


Name = Annotated[str, BeforeValidator(_text)]
