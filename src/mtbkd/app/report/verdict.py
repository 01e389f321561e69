"""Can the student be trusted? Plain findings, each with the rule that graded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtbkd.app.report import findings
from mtbkd.app.report.against import against
from mtbkd.app.report.data import ReportData
from mtbkd.app.report.families import FAMILIES
from mtbkd.app.report.findings import Finding, Level
from mtbkd.app.report.words import join

_ORDER: tuple[Level, ...] = ("trust", "care", "doubt")


@dataclass(frozen=True)
class Verdict:
    """The worst level of all findings, and the findings.

    Attributes:
        level: "trust", "care" or "doubt".
        headline: One sentence, which names what lowered the level.
        findings: In the order in which a reader asks.
    """

    level: Level
    headline: str
    findings: tuple[Finding, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.sentence for finding in self.findings)


def verdict(data: ReportData[Any]) -> Verdict:
    """Judge the student: it is as good as its worst finding.

    Every family:

    | Finding | trust | care | doubt |
    |---|---|---|---|
    | test examples | 100 or more | fewer | |
    | NLL | within 2 standard errors of the best baseline | above | no better than label frequencies, or than one Gaussian |
    | 95th percentile of R-hat | < 1.1 | < 1.2, or unknown | above |
    | AUROC for inputs beside the test set, if there are any | >= 0.6 | below | |
    | what it adds over an ensemble on the same pool | all within 2 standard errors, or some better | some worse, none better | |
    | warnings | none | any | |

    Classification:

    | Finding | trust | care | doubt |
    |---|---|---|---|
    | accuracy | within 2 points or 2 standard errors of teachers and pool | below | below the most common class |
    | ECE | <= 0.05, or twice what chance gives | <= 0.10 | above |
    | 90 % sets | hold 90 %, less 2 standard errors | 5 points less | below |
    | AUROC for errors | >= 0.8 | >= 0.6 | below |
    | classes of 10 examples or more, from three classes on | none is taken for one other class more often than for itself | any is | |

    Multi-label:

    | Finding | trust | care | doubt |
    |---|---|---|---|
    | macro F1 | within 2 points or 2 standard errors of teachers and pool | below | below always saying yes |
    | ECE, mean over labels | <= 0.05, or twice what chance gives | <= 0.10 | above |
    | ECE of the worst label | <= 0.10, or three times what chance gives | above | |
    | AUROC for wrong answers | >= 0.8 | >= 0.6 | below |

    Regression:

    | Finding | trust | care | doubt |
    |---|---|---|---|
    | RMSE | within 2 % or 2 standard errors of teachers and pool | above, or a target no better than its mean | no target better |
    | calibration of quantiles | <= 0.05, or twice what chance gives | <= 0.10 | above |
    | 90 % intervals | hold 90 %, less 2 standard errors | 5 points less | below |
    | the same, of the most and of the least certain third | hold 90 %, less 2 standard errors | 10 points less | below |
    """  # noqa: E501
    lines = (
        findings.size(data),
        *FAMILIES[data.family].findings(data),
        findings.told_apart(data),
        against(data),
        findings.chains(data),
        findings.warnings(data),
    )
    known = tuple(line for line in lines if line is not None)
    level = max(known, key=lambda line: _ORDER.index(line.level)).level
    return Verdict(level, _headline(level, known), known)


def _headline(level: Level, found: tuple[Finding, ...]) -> str:
    reasons = join([f.about for f in found if f.level == level])
    return {
        "trust": "This student can be trusted on data like its test set.",
        "care": f"Use this student with care: look at {reasons}.",
        "doubt": f"Do not rely on this student yet: look at {reasons}.",
    }[level]
