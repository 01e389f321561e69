"""Teachers of every make: adapters, and labelling of many examples."""

from mtbkd.teachers.base import Teacher as Teacher
from mtbkd.teachers.base import from_callable as from_callable
from mtbkd.teachers.factory import adapt as adapt
from mtbkd.teachers.factory import from_factory as from_factory
from mtbkd.teachers.files import from_table as from_table
from mtbkd.teachers.hugging_face import from_hugging_face as from_hugging_face
from mtbkd.teachers.labelling.asking import Examples as Examples
from mtbkd.teachers.labelling.label import label as label
from mtbkd.teachers.labelling.loading import load_table as load_table
from mtbkd.teachers.labelling.on_ray import label_on_ray as label_on_ray
from mtbkd.teachers.language.exchange import Limits as Limits
from mtbkd.teachers.language.exchange import Server as Server
from mtbkd.teachers.language.local import from_language_model as from_language_model
from mtbkd.teachers.language.prompt import Prompt as Prompt
from mtbkd.teachers.language.server import from_server as from_server
from mtbkd.teachers.onnx_model import from_onnx as from_onnx
from mtbkd.teachers.sklearn_estimator import from_sklearn as from_sklearn
from mtbkd.teachers.torch_module import from_torch as from_torch
