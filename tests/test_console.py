"""What is shown of long stages: bars that say what they do, or plain lines now and then."""

import pytest

from mtbkd.app import console
from mtbkd.app.console import Progress, in_words
from mtbkd.app.run.baselines import stages_of


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(console, "perf_counter", lambda: Clock.now)
    return Clock


def run(progress, clock, stage, seconds, step, total=100, start=0):
    """A stage of so many steps, evenly told over its time."""
    for done in range(start, total + 1, step):
        progress.report(stage, done, total)
        clock.now += seconds * step / (total - start) if done < total else 0.0


@pytest.fixture
def progress(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with Progress() as progress:
        yield progress


def test_a_long_stage_writes_a_line_every_ten_seconds(progress, clock, capsys):
    run(progress, clock, "prior-1-1-5-0", seconds=50.0, step=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "mtbkd: trying power 5: 20%, 40 s left",
        "mtbkd: trying power 5: 40%, 30 s left",
        "mtbkd: trying power 5: 60%, 20 s left",
        "mtbkd: trying power 5: 80%, 10 s left",
        "mtbkd: trying power 5: 100%, 0 s left",
    ]


def test_short_stages_write_nothing_however_many_there_are(progress, clock, capsys):
    for number in range(20):
        run(progress, clock, f"prior-1-1-{number}-0", seconds=9.9, step=10)
    assert capsys.readouterr() == ("", "")


def test_a_stage_that_goes_on_is_as_fast_as_it_is_now(progress, clock, capsys):
    run(progress, clock, "sampling", seconds=7200.0, step=25, start=50)
    progress.report("reference", 0, 3)
    clock.now += 100.0
    progress.report("reference", 1, 3)
    clock.now += 9.0
    progress.report("reference", 1, 3)
    assert capsys.readouterr().err.splitlines() == [
        "mtbkd: sampling the student: 75%, 1 h 0 min left",
        "mtbkd: sampling the student: 100%, 0 s left",
        "mtbkd: sampling the reference: 33%, 3 min left",
    ]


def test_hours_are_hours(progress, clock, capsys):
    progress.report("Rock", 0, 100)
    clock.now += 60.0
    progress.report("Rock", 1, 100)
    clock.now += 60.0
    progress.report("Rock", 1, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mtbkd: Rock: 1%, 1 h 39 min left"
    assert lines[1] == "mtbkd: Rock: 1%, 3 h 18 min left"


def test_bars_say_what_they_do(monkeypatch, clock, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Progress() as progress:
        run(progress, clock, "prior-1-1-5-6", seconds=50.0, step=10)
        run(progress, clock, "my [b]teacher[/b]", seconds=1.0, step=10)
        told = [task.description for task in progress._bars.tasks]
    assert told == ["trying power 5, discount 6", "my [b]teacher[/b]"]
    err = capsys.readouterr().err
    assert "trying power 5, discount 6" in err
    assert "my [b]teacher[/b]" in err
    assert "mtbkd:" not in err


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("prior-20-2-0.2-0", "trying concentration 20, softening 2, power 0.2"),
        ("prior-1-1-1e-05-0", "trying power 1e-05"),
        ("modes of fold 2 of 5", "finding modes without fold 2 of 5"),
        ("labels-only-1", "baseline labels only"),
        ("ensemble-on-the-stacked-pool-4", "baseline ensemble on the stacked pool, wider weights"),
        ("entropy-weighted-KD-all", "baseline entropy weighted KD, on all labels"),
        ("my-teacher-1", "my-teacher-1"),
        ("features of esm2", "features of esm2"),
    ],
)
def test_stages_in_words(stage, words):
    assert in_words(stage) == words


@pytest.mark.parametrize(
    "name", ["labels only", "averaged KD", "entropy-weighted KD", "ensemble on the entropy pool"]
)
def test_stages_of_baselines_have_words(name):
    assert all(in_words(stage).startswith("baseline ") for stage in stages_of(name))
