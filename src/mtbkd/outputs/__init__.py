"""What the teachers said: of which kind, one teacher's table, all of them aligned, on disk."""

from mtbkd.observation import Kind as Kind
from mtbkd.outputs.aligned import TeacherOutputs as TeacherOutputs
from mtbkd.outputs.aligned import align as align
from mtbkd.outputs.kinds import LOG_FLOOR as LOG_FLOOR
from mtbkd.outputs.table import TeacherTable as TeacherTable
from mtbkd.outputs.table import make_table as make_table
from mtbkd.outputs.table import make_top_table as make_top_table
