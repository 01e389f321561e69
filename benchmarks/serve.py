"""What the server stands: latencies under load, memory over many requests, start to ready.

    python benchmarks/serve.py runs/digits.export --rate 200 --seconds 60
    python benchmarks/serve.py runs/digits.export --requests 100000     # memory, as fast as it can

Requests are sent at their times whether or not earlier ones were answered (an open loop), each of
one example, by a process of its own on the same machine; a latency runs from the time when a request
was due. Start to ready is the median of several starts. Only Linux tells memory (`/proc`).
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import httpx
import numpy as np
from safetensors.numpy import load_file

STARTS, CONNECTIONS, WARM_UP = 3, 16, 200


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Address, process and seconds from start to ready."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    begun = monotonic()
    command = [sys.executable, "-m", "mtbkd_serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/ready", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise
                sleep(0.01)
        yield url, process.pid, monotonic() - begun
    finally:
        process.terminate()
        process.wait()


def megabytes(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def load(url: str, rows: np.ndarray, rate: float, n: int) -> tuple[list[float], Counter[int]]:
    """Seconds of each answer, and how often each status came; a rate of 0 is as fast as it can."""
    limits = httpx.Limits(max_connections=CONNECTIONS)
    spent: list[float] = []
    statuses: Counter[int] = Counter()
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:

        async def ask(i: int, due: float) -> None:
            found = await client.post(
                f"{url}/predict", json={"rows": [rows[i % len(rows)].tolist()]}
            )
            spent.append(monotonic() - due)
            statuses[found.status_code] += 1

        if not rate:
            left = iter(range(n))

            async def go_on() -> None:
                for i in left:
                    await ask(i, monotonic())

            await asyncio.gather(*(go_on() for _ in range(CONNECTIONS)))
            return spent, statuses
        begun, tasks = monotonic(), []
        for i in range(n):
            due = begun + i / rate
            await asyncio.sleep(max(0.0, due - monotonic()))
            tasks.append(asyncio.create_task(ask(i, due)))
        await asyncio.gather(*tasks)
    return spent, statuses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--requests", type=int, default=0)
    asked = parser.parse_args()
    rows = load_file(asked.folder / "examples.safetensors")["inputs"]
    starts = []
    for _ in range(STARTS - 1):
        with serving(asked.folder) as (_, _, start):
            starts.append(start)
    with serving(asked.folder) as (url, pid, start):
        starts.append(start)
        print(f"start to ready: {statistics.median(starts):.2f} s, median of {STARTS}")
        asyncio.run(load(url, rows, 0, WARM_UP))
        before = megabytes(pid)
        rate, n = (0.0, asked.requests) if asked.requests else (asked.rate, 0)
        n = n or int(asked.rate * asked.seconds)
        begun = monotonic()
        spent, statuses = asyncio.run(load(url, rows, rate, n))
        each = 1000 * np.quantile(spent, [0.5, 0.9, 0.99, 1])
        print(
            f"{n:,} requests, {n / (monotonic() - begun):.0f} a second; statuses {dict(statuses)}"
        )
        print("ms: median {:.1f}, 90 % {:.1f}, 99 % {:.1f}, longest {:.1f}".format(*each))
        print(f"memory: {before:.1f} MB, then {megabytes(pid):.1f} MB")


if __name__ == "__main__":
    main()
