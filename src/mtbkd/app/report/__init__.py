"""The report of a run: one HTML page that answers whether the student can be trusted."""

from mtbkd.app.report.data import Classes as Classes
from mtbkd.app.report.data import Example as Example
from mtbkd.app.report.data import Labels as Labels
from mtbkd.app.report.data import Numbers as Numbers
from mtbkd.app.report.data import Others as Others
from mtbkd.app.report.data import ReportData as ReportData
from mtbkd.app.report.data import Trust as Trust
from mtbkd.app.report.deferring import draw_defer as draw_defer
from mtbkd.app.report.deferring import promise as promise
from mtbkd.app.report.families import FAMILIES as FAMILIES
from mtbkd.app.report.page import render as render
from mtbkd.app.report.reference import ReferenceData as ReferenceData
from mtbkd.app.report.reference import draw_reference as draw_reference
from mtbkd.app.report.verdict import Verdict as Verdict
from mtbkd.app.report.verdict import verdict as verdict
