"""The student: a network as a function of a flat position, its log posterior and curvature."""

from mtbkd.student.student import Student as Student
from mtbkd.student.student import make_student as make_student
from mtbkd.student.summary import summary as summary
