"""The report of a run: one HTML page that answers whether the student can be trusted."""

from mtbkd.report.data import Example as Example
from mtbkd.report.data import ReportData as ReportData
from mtbkd.report.page import render as render
from mtbkd.report.verdict import Verdict as Verdict
from mtbkd.report.verdict import verdict as verdict
