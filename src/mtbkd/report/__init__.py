"""The report of a run: one HTML page that answers whether the student can be trusted."""

from mtbkd.report.data import Example as Example
from mtbkd.report.data import LabelReportData as LabelReportData
from mtbkd.report.data import NumberReportData as NumberReportData
from mtbkd.report.data import Others as Others
from mtbkd.report.data import ReportData as ReportData
from mtbkd.report.data import Shown as Shown
from mtbkd.report.page import render as render
from mtbkd.report.reference import ReferenceData as ReferenceData
from mtbkd.report.reference import draw_reference as draw_reference
from mtbkd.report.verdict import Verdict as Verdict
from mtbkd.report.verdict import verdict as verdict
