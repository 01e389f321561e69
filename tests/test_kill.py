"""A run that is killed at any moment, then started again, ends as one that was not."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SETTINGS = [
    *("--set", "map.epochs=10"),
    *("--set", "sampler.burn_in=100"),
    *("--set", "sampler.draws=40"),
    *("--set", "sampler.thinning=20"),
    *("--set", "chains=3"),
]
SAME = ("predictions.parquet", "teachers/outputs.safetensors", "modes.safetensors")


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from mtbkd.app.cli import main; main()", "run", "digits"]
    return subprocess.Popen(
        [*command, "--out", str(out), *SETTINGS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def without_costs(out: Path) -> dict[str, object]:
    metrics = json.loads((out / "metrics.json").read_text())
    del metrics["cost"]
    return metrics


def test_killed_at_any_moment_and_resumed_ends_in_the_same_bytes(tmp_path):
    calm = tmp_path / "calm"
    begin = time.perf_counter()
    process = start(calm)
    errors = process.communicate()[1].decode()
    assert process.returncode == 0, errors
    duration = time.perf_counter() - begin
    samples = sorted(p.name for p in (calm / "samples").glob("draws-*"))
    assert len(samples) == 4
    moments, killed = random.Random(0), 0
    for trial in range(2):
        out = tmp_path / f"killed-{trial}"
        for attempt in range(6):
            process = start(out)
            try:
                # the first attempts die somewhere, each later than the last; the final one lives,
                # however busy the machine has become
                patience = duration * moments.uniform(0.3, 0.7 + 0.1 * attempt)
                patience = patience if attempt < 5 else None
                process.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed += 1
        assert process.returncode == 0
        assert without_costs(out) == without_costs(calm)
        for name in [*SAME, *(f"samples/{s}" for s in samples)]:
            assert (out / name).read_bytes() == (calm / name).read_bytes(), name
        assert not [p for p in out.rglob("*") if p.name.endswith(".partial")]
    assert killed >= 2
