"""A server in a process of its own, as people start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent.parent / "serve" / "src"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as found:
            return found.status == 200
    except OSError:
        return False


@contextmanager
def started(folder: Path, *options: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """Its address and process, once it is ready; ended with the block if it is there still."""
    port = free_port()
    command = [sys.executable, "-m", "mtbkd_serve", str(folder), "--port", str(port), *options]
    env = {**os.environ, "PYTHONPATH": str(SOURCES), **environment}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            if is_ready(url):
                break
            if process.poll() is not None:
                raise RuntimeError(process.stderr.read().decode())
            time.sleep(0.05)
        yield url, process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)
