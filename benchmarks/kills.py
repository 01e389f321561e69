"""Runs that are killed at random moments of every stage and started again end in the same bytes.

    python benchmarks/kills.py --kills 60

Kills `mtbkd run digits` again and again, each time in the next of its stages, until it is finished;
then compares every file with an undisturbed run's, but for what things cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "from mtbkd.app.cli import main; main()", "run", "digits"]
SETTINGS = [
    *("--set", "map.epochs=5"),
    *("--set", "sampler.burn_in=100"),
    *("--set", "sampler.draws=60"),
    *("--set", "sampler.thinning=5"),
    *("--set", "chains=2"),
]
BEGINS = {
    "data": "config.yaml",
    "teachers": "config.yaml",
    "student": "teachers/costs.json",
    "modes": "weights.json",
    "sampling": "modes.safetensors",
    "baselines": "samples/manifest.json",
    "evaluation": "baselines/ensemble-on-the-stacked-pool-4.safetensors",
    "report": "metrics.json",
}
"""The file with which a stage begins."""
PATIENCE = 300.0  # seconds until a process that does not come so far is given up


def start(out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "--out", str(out), *SETTINGS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def killed_in(stage: str, out: Path, seconds: float) -> bool:
    """Start a run and kill it so long after a stage has begun; False if it finished before."""
    process, begin = start(out), time.monotonic()
    while not (out / BEGINS[stage]).exists() and process.poll() is None:
        if time.monotonic() - begin > PATIENCE:
            break
        time.sleep(0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.communicate()
    return process.returncode != 0


def finished(out: Path) -> None:
    process = start(out)
    told = process.communicate()[1].decode()
    if process.returncode:
        raise SystemExit(f"{out} did not go on: {told}")


def files(out: Path) -> dict[str, Any]:
    """What each file holds, but for what things cost."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        found[path.relative_to(out).as_posix()] = path.read_bytes()
    metrics, manifest = (json.loads(found[name]) for name in ("metrics.json", "manifest.json"))
    del metrics["cost"]
    of_costs = {"metrics.json", "report.html", "teachers/costs.json", "training.json"}
    for name in ("seconds", "peak_memory_bytes", "own_sha256"):
        del manifest[name]
    manifest["sha256"] = {n: h for n, h in manifest["sha256"].items() if n not in of_costs}
    costs = json.loads(found["teachers/costs.json"])
    for spent in costs.values():
        spent.pop("ms_per_example", None)
    del found["training.json"]
    found |= {"metrics.json": metrics, "manifest.json": manifest, "teachers/costs.json": costs}
    # the last cell of each row of scores says milliseconds
    page = re.sub(r"\n<td.*</td>\n</tr>", "\n</tr>", found["report.html"].decode())
    page = re.sub(r" It costs [^<]*| The ensemble is [^<]*", "", page)
    found["report.html"] = re.sub(r".*seconds\.\w+.*", "", page)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, kills = random.Random(asked.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        calm, runs = Path(folder) / "calm", 0
        finished(calm)
        seconds = json.loads((calm / "manifest.json").read_text())["seconds"]
        seconds |= {"modes": seconds["student"] / 2, "sampling": seconds["student"]}
        expected = files(calm)
        while kills.total() < asked.kills:
            out, runs = Path(folder) / f"killed-{runs}", runs + 1
            for stage in list(BEGINS)[: asked.kills - kills.total()]:
                if killed_in(stage, out, chance.uniform(0, seconds[stage])):
                    kills[stage] += 1
            finished(out)
            found = files(out)
            differing = [n for n in expected | found if expected.get(n) != found.get(n)]
            told = ", ".join(f"{n} in {stage}" for stage, n in kills.items())
            print(f"{kills.total()} kills ({told})", flush=True)
            if differing:
                raise SystemExit(f"differing: {', '.join(differing)}")
    print(f"all {len(expected)} files of {runs} runs as those of an undisturbed one, costs aside")


if __name__ == "__main__":
    main()
