"""The whole library from Python: on a posterior, what the commands do with a run directory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from shutil import copyfile, copytree
from typing import Any, Literal

from numpy.typing import ArrayLike
from torch import Tensor, nn

from mtbkd.app.folder import close_run, open_run, read_run
from mtbkd.app.python.learned import Explained, Learned, Reads, Scratch
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes import python as own
from mtbkd.app.run import stages
from mtbkd.app.run.calibration import calibrated, on_calibration
from mtbkd.app.run.commands import evaluate_run, report_run
from mtbkd.app.run.diagnose import diagnose_run
from mtbkd.app.run.few import keep_few
from mtbkd.data import Dataset
from mtbkd.distillation import posterior as plain
from mtbkd.explain.causes import Background, find_causes
from mtbkd.explain.nearest import nearest
from mtbkd.explain.outside import Seen, see
from mtbkd.files import save_json
from mtbkd.outputs.aligned import TeacherOutputs
from mtbkd.outputs.store import save_outputs
from mtbkd.outputs.teacher_outputs import joined_outputs
from mtbkd.predictive import Answer
from mtbkd.types import InputError, Report, quiet, tensor_of


@dataclass(frozen=True)
class Posterior(plain.Posterior):
    """A Bayesian student that remembers what it learned from.

    As `mtbkd.distillation.posterior.Posterior`, whose attributes it has; and:

    Attributes:
        learned: What it was made of.
    """

    learned: Learned | None = None
    _runs: list[Scratch] = field(default_factory=list, repr=False, compare=False)

    def predict(
        self,
        inputs: ArrayLike | Tensor | Sequence[Any],
        *,
        level: float = 0.9,
        point: Literal["mean", "mode"] = "mean",
    ) -> Answer:
        """Average over the posterior; see `mtbkd.predictive.predict`.

        Args:
            inputs: An array, a tensor, or a frame of pandas or polars, whose columns are in the
                order of those that were learned from; or raw examples, such as a list of texts or
                of paths, where the posterior knows how they are read.
            level: Posterior mass of the credible intervals, in (0, 1).
            point: ``mean`` over draws, or ``mode``.

        Raises:
            InputError: If the inputs are not what it reads.
        """
        return super().predict(self._read(inputs), level=level, point=point)

    def reading(self, reads: Reads) -> Posterior:
        """The same, which also takes raw examples: a list of texts, or of paths.

        Args:
            reads: Raw examples to what the student reads of them, as it read the training examples.
        """
        return replace(self, learned=replace(self._learned("read raw examples"), reads=reads))

    def explain(self, inputs: ArrayLike | Tensor | Sequence[Any], *, n: int = 5) -> Explained:
        """Say why answers are uncertain, which classes are possible, and what is alike.

        Args:
            inputs: As `predict` takes them.
            n: How many training examples to name for each.

        Raises:
            InputError: If there were no calibration examples.
        """
        learned = self._learned("explain")
        background, known = self._background
        seen = see(self._head, self.student.features(self._read(inputs)))
        answer = self.predict(inputs, level=learned.config.predict.level)
        rows, distances = nearest(seen, known, n)
        ids = learned.task.train.ids
        return Explained(
            answer=answer,
            causes=find_causes(background, seen, answer),
            neighbours=tuple(tuple(ids[row] for row in each) for each in rows.tolist()),
            distances=distances.double().numpy(),
        )

    def evaluate(
        self,
        test: Dataset,
        teachers: TeacherOutputs | None = None,
        *,
        baselines: Literal["none", "fast", "all"] = "none",
        report: Report = quiet,
    ) -> dict[str, Any]:
        """Judge it on labelled examples, as `mtbkd evaluate` does.

        Args:
            test: Labelled examples that it did not learn from.
            teachers: What they say there; those that it learned from if these answered there too.
            baselines: Which are trained as well, to stand beside it.
            report: Called with the progress of long stages.

        Returns:
            The content of ``metrics.json``.

        Raises:
            InputError: If there were no calibration examples, or what is given does not fit.
        """
        learned = self._learned("evaluate")
        heard = learned.teachers
        if teachers is not None:
            fresh = [i for i in teachers.ids if i not in set(heard.ids)]
            heard = joined_outputs(heard, teachers.at(fresh)) if fresh else heard
        heard.at(test.ids)
        config = learned.config.model_copy(update={"baselines": baselines})
        judged = replace(
            learned, task=replace(learned.task, test=test), teachers=heard, config=config
        )
        run = Scratch(tempfile.mkdtemp(prefix="mtbkd-"))
        folder = Path(run.place) / learned.task.name
        self._write(judged, folder)
        found = evaluate_run(folder, report, judged.recipe)
        self._runs[:] = [run]
        return found

    def report(self, path: str | Path) -> Path:
        """Draw the report of the last `evaluate`; returns where it is.

        Raises:
            InputError: If it was not evaluated.
        """
        folder = self._evaluated("report")
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        copyfile(report_run(folder, self._learned("report").recipe), target)
        return target

    def diagnose(self, *, factor: float = 10.0, report: Report | None = None) -> dict[str, Any]:
        """Compare it with a long reference run, as `mtbkd diagnose` does, on the test examples.

        Args:
            factor: The reference's steps over its own.
            report: Called with each stage's progress.

        Raises:
            InputError: If it was not evaluated, or the reference cannot be made.
        """
        folder = self._evaluated("diagnose")
        recipe = self._learned("diagnose").recipe
        return diagnose_run(folder, factor=factor, report=report, recipe=recipe)

    def save(self, folder: str | Path) -> Path:
        """Write a run directory that `load` and the commands read; returns where it is.

        The network is not written, as a run directory holds no code; everything else is.

        Raises:
            InputError: If the folder holds something else.
        """
        learned, out = self._learned("save"), Path(folder)
        if out.exists() and any(out.iterdir()):
            raise InputError(
                f"Expected {out} to be new or empty, but it holds files. Choose another folder."
            )
        if self._runs:
            copytree(self._evaluated("save"), out, dirs_exist_ok=True)
        elif learned.folder is not None:
            copytree(learned.folder, out, dirs_exist_ok=True)
            return out
        else:
            self._write(learned, out)
            behind, head = stages.on_features(learned.task, self, out)
            if len(learned.task.calibration):
                head, _ = calibrated(learned.config, behind, learned.teachers, head, out)
            keep_few(head, behind.train.inputs, out)
        close_run(out, learned.config, self.classes, {"seconds": {}})
        return out

    @staticmethod
    def load(
        folder: str | Path,
        network: nn.Module | None = None,
        *,
        device: str = "auto",
    ) -> Posterior:
        """Read a run directory, which Python or a command has written.

        Args:
            folder: The run directory.
            network: As it was given to `distill`; its weights do not matter. Not needed where a
                command has built it.
            device: Where to predict.

        Raises:
            InputError: If the run is not finished, a file of it was changed, or the network is not
                the one that was trained.
        """
        out = Path(folder)
        config = read_run(out, "samples/manifest.json", "teachers/costs.json")
        recipe = find_recipe(config.recipe)
        if network is not None:
            recipe = replace(recipe, network=lambda *_: network)
        task = (
            own.examples(out)
            if recipe.name == own.RECIPE.name
            else recipe.load(config, out / "features", quiet)
        )
        teachers, _ = stages.teach(recipe, config, task, out)
        config = config.model_copy(update={"device": device})
        found = stages.recall(recipe, config, task.train.inputs[:2], task.train.classes, out)
        learned = Learned(task, teachers, config, recipe, folder=out)
        return with_learned(found, learned)

    @cached_property
    def _head(self) -> plain.Posterior:
        """The same behind the network's frozen part."""
        return replace(self, student=replace(self.student, frozen=None))

    @cached_property
    def _background(self) -> tuple[Background, Seen]:
        """What answers are compared with, and all training examples as the student sees them."""
        learned = self._learned("explain")
        task = learned.task
        if not len(task.calibration):
            raise InputError(
                "Expected calibration examples to explain answers by, but the student had none. "
                "Give them to mtbkd.distill."
            )
        with tempfile.TemporaryDirectory(prefix="mtbkd-") as scratch:
            out = learned.folder or Path(scratch)
            behind, head = stages.on_features(task, self, out)
            head, made = calibrated(learned.config, behind, learned.teachers, head, out)
            return made, see(head, behind.train.inputs)

    def _read(self, inputs: Any) -> Tensor:
        """What the student reads of what was given."""
        raw = isinstance(inputs, list | tuple) and inputs and isinstance(inputs[0], str | Path)
        if not raw:
            return tensor_of(inputs, "inputs")
        reads = None if self.learned is None else self.learned.reads
        if reads is None:
            raise InputError(
                f"Expected numbers, but got {type(inputs[0]).__name__}. Say what makes "
                "numbers of such examples with posterior.reading(function)."
            )
        return reads(inputs)

    def _learned(self, what: str) -> Learned:
        if self.learned is None:
            raise InputError(
                f"Expected a posterior that mtbkd.distill made with teachers to {what}, but got "
                "one that does not know what it learned from. Distil it with teachers."
            )
        return self.learned

    def _evaluated(self, what: str) -> Path:
        """The run directory of the last evaluation."""
        learned = self._learned(what)
        if self._runs:
            return Path(self._runs[-1].place) / learned.task.name
        if learned.folder is not None and len(learned.task.test):
            return learned.folder
        raise InputError(
            f"Expected an evaluated posterior to {what}, but this one was not. Call "
            "posterior.evaluate(test, teachers) first."
        )

    def _write(self, learned: Learned, out: Path) -> None:
        """Write a run directory that is not closed yet."""
        open_run(out, learned.config)
        for name in own.SPLITS:
            if len(split := getattr(learned.task, name)):
                own.keep_split(out, name, split)
        save_outputs(out / "teachers", learned.teachers)
        save_json(out / "teachers" / "costs.json", {})
        chains = self.at_temperature(1.0) if stages.learns_calibration(learned.config) else self
        plain.save_posterior(chains, out, learned.teachers.names)


def at_its_temperature(posterior: Posterior) -> Posterior:
    """The same at the temperature that calibration examples find which it learned from."""
    learned = posterior.learned
    if learned is None or not len(learned.task.calibration):
        return posterior
    with tempfile.TemporaryDirectory(prefix="mtbkd-") as scratch:
        out = Path(scratch)
        behind, head = stages.on_features(learned.task, posterior, out)
        _, temperature = on_calibration(learned.config, behind, learned.teachers, head, out)
    return posterior.at_temperature(temperature)


def with_learned(posterior: plain.Posterior, learned: Learned | None) -> Posterior:
    """The same posterior with what it was made of."""
    held = {f.name: getattr(posterior, f.name) for f in fields(plain.Posterior)}
    return Posterior(**held, learned=learned)
