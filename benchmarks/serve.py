"""What the server stands: latencies under load, memory over many requests, start to ready.

    python benchmarks/serve.py runs/digits.export --rate 200 --seconds 60
    python benchmarks/serve.py runs/digits.export --requests 100000     # memory, as fast as it can

Each request is of one example and has a time when it is due, from which its latency runs, so that
waiting for a connection counts. They are sent by this process, on the same machine, over several
connections. Start to ready is the median of several starts. Only Linux tells memory (`/proc`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
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

import numpy as np
from safetensors.numpy import load_file

STARTS, CONNECTIONS, WARM_UP = 3, 32, 200


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


def cpu_seconds(pid: int) -> float:
    """Time that a process has spent on cores, which others on the machine do not lengthen much."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(url: str, rows: np.ndarray, rate: float, n: int) -> tuple[list[float], Counter[str]]:
    """Seconds of each answer, and how often each status came; a rate of 0 is as fast as it can."""
    host, port = url.removeprefix("http://").split(":")
    bodies = [json.dumps({"rows": [row.tolist()]}).encode() for row in rows]
    heads = [
        f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(b)}\r\n\r\n" for b in bodies
    ]
    whole = [head.encode() + body for head, body in zip(heads, bodies, strict=True)]
    spent: list[float] = []
    statuses: Counter[str] = Counter()
    left, begun = iter(range(n)), monotonic()

    async def go_on() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for i in left:
            due = begun + i / rate if rate else monotonic()
            await asyncio.sleep(max(0.0, due - monotonic()))
            writer.write(whole[i % len(whole)])
            told = await reader.readuntil(b"\r\n\r\n")
            size = int(re.search(rb"content-length: (\d+)", told, re.IGNORECASE)[1])
            await reader.readexactly(size)
            spent.append(monotonic() - due)
            statuses[told[9:12].decode()] += 1
        writer.close()

    await asyncio.gather(*(go_on() for _ in range(CONNECTIONS)))
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
        before, spent_before = megabytes(pid), cpu_seconds(pid)
        rate, n = (0.0, asked.requests) if asked.requests else (asked.rate, 0)
        n = n or int(asked.rate * asked.seconds)
        begun = monotonic()
        spent, statuses = asyncio.run(load(url, rows, rate, n))
        each = 1000 * np.quantile(spent, [0.5, 0.9, 0.99, 1])
        print(
            f"{n:,} requests, {n / (monotonic() - begun):.0f} a second; statuses {dict(statuses)}"
        )
        print("ms: median {:.1f}, 90 % {:.1f}, 99 % {:.1f}, longest {:.1f}".format(*each))
        print(f"of a core for a request: {1000 * (cpu_seconds(pid) - spent_before) / n:.2f} ms")
        print(f"memory: {before:.1f} MB, then {megabytes(pid):.1f} MB")


if __name__ == "__main__":
    main()
