"""Teachers from functions, PyTorch modules, scikit-learn estimators and a user's factory."""

import sys

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from mtbkd.teachers.base import check_output, from_callable
from mtbkd.teachers.factory import adapt, from_factory
from mtbkd.teachers.labelling.convert import as_table
from mtbkd.teachers.sklearn_estimator import from_sklearn
from mtbkd.teachers.torch_module import from_torch
from mtbkd.types import InputError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.array(["cat", "dog", "emu"])[np.argmax(X[:, :3], 1)]


def table_of(teacher, inputs=X):
    numbers = check_output(teacher, teacher.predict(inputs), rows=len(inputs), where="batch 0")
    return as_table(teacher, numbers, [str(i) for i in range(len(inputs))])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            np.zeros((3, 3)),
            r"Expected 2 columns from teacher 'f' in every batch, .* got 3 in batch",
        ),
        (np.zeros((2, 2)), r"Expected 3 rows from teacher 'f' in batch 7, but got 2"),
        (
            np.array([[0, 0], [np.nan, 0], [0, 0]]),
            r"got NaN or infinity in row 1 of batch 7 \(1 su",
        ),
        (torch.full((3, 2), torch.inf), r"in row 0 of batch 7 \(3 such rows\)"),
        (np.zeros((3, 2, 1)), r"as \(example, class\), but got 3 axes in batch 7"),
        (np.zeros(3), r"but got 1 axes in batch 7"),
        ([["a", "b"]] * 3, r"Expected numbers from teacher 'f' in batch 7, but got <U1"),
    ],
)
def test_outputs_are_checked(output, message):
    teacher = from_callable("f", lambda x: output, kind="logits", classes="ab")
    with pytest.raises(InputError, match=message):
        check_output(teacher, teacher.predict(None), rows=3, where="batch 7")


def test_pairs_are_checked():
    teacher = from_callable(
        "f", None, kind="mean", classes=["t"], family="regression", variance=True
    )
    with pytest.raises(InputError, match=r"Expected a pair \(mean, variance\) .* got ndarray"):
        check_output(teacher, np.zeros(3), rows=3, where="batch 0")
    with pytest.raises(InputError, match=r"one variance for each mean .*\(2, 1\) and \(3, 1\)"):
        check_output(teacher, (np.zeros(3), np.ones(2)), rows=3, where="batch 0")
    values, variance = check_output(teacher, (np.zeros(3), np.ones(3)), rows=3, where="batch 0")
    assert values.shape == variance.shape == (3, 1)
    zero = from_callable("f", None, kind="log_probs", classes="ab")
    check_output(zero, [[-np.inf, 0.0]], rows=1, where="batch 0")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.frozen = nn.BatchNorm1d(4).eval()
        self.drop = nn.Dropout(0.5)
        self.linear = nn.Linear(4, 3)
        self.linear.weight.data.normal_(generator=generator)
        self.grads = []

    def forward(self, x):
        self.grads.append((torch.is_grad_enabled(), self.training, x.dtype))
        return self.linear(self.drop(self.frozen(x)))


def test_module_runs_in_evaluation_mode_and_gets_its_mode_back():
    net = Net()
    inputs = torch.from_numpy(X).float()
    teacher = from_torch("net", net, classes="abc", device="cpu", batch_size=16)
    output = teacher.predict(inputs)
    assert net.training
    assert net.drop.training
    assert not net.frozen.training
    assert net.grads == [(False, False, torch.float32)] * 4
    assert torch.equal(output, teacher.predict(inputs))  # no dropout
    assert torch.equal(output, teacher.predict(inputs.numpy()))
    net.linear.weight.data[0, 0] += 1e-3
    changed = from_torch("net", net, classes="abc", device="cpu")
    assert changed.fingerprint != teacher.fingerprint
    broken = from_torch("net", net, classes="abc", device="cpu")
    with pytest.raises(RuntimeError):
        broken.predict(torch.zeros(2, 5))
    assert net.training


def test_module_in_lower_precision_and_on_an_unknown_device():
    net = Net().eval()
    inputs = torch.from_numpy(X).float()
    exact = from_torch("net", net, classes="abc", device="auto").predict(inputs)
    teacher = from_torch("net", net, classes="abc", device="cpu", precision="bfloat16")
    rough = teacher.predict(inputs)
    assert rough.dtype == torch.bfloat16
    assert 0 < float((rough - exact).abs().max()) < 0.1
    assert table_of(teacher, inputs).values.dtype == torch.float32
    with pytest.raises(InputError, match="precision among float32, bfloat16, float16, but got"):
        from_torch("net", net, classes="abc", precision="int8")
    with pytest.raises(InputError, match="Expected a device of this machine, but got 'gpu'"):
        from_torch("net", net, classes="abc", device="gpu")


def test_module_that_gives_mean_and_variance():
    net = nn.Linear(4, 2)

    class Both(nn.Module):
        def forward(self, x):
            return net(x), net(x) ** 2 + 1

    teacher = from_torch(
        "both",
        Both(),
        classes=["u", "v"],
        kind="mean",
        family="regression",
        variance=True,
        batch_size=7,
        device="cpu",
    )
    inputs = torch.from_numpy(X).float()
    mean, log_variance = table_of(teacher, inputs).values.unbind(-1)
    assert torch.allclose(mean, net(inputs).detach(), atol=1e-6)
    assert torch.allclose(log_variance.exp(), mean**2 + 1, rtol=1e-5)


def test_classifiers_of_scikit_learn():
    forest = RandomForestClassifier(5, random_state=0).fit(X, Y)
    teacher = from_sklearn("forest", forest)
    assert teacher.classes == ("cat", "dog", "emu")
    assert teacher.kind == "probs"
    assert torch.allclose(
        table_of(teacher).values.exp().double(), torch.tensor(forest.predict_proba(X)), atol=1e-6
    )
    svc = make_pipeline(StandardScaler(), SVC(random_state=0)).fit(X, Y)
    teacher = from_sklearn("svc", svc)
    assert teacher.kind == "logits"
    assert [teacher.classes[i] for i in table_of(teacher).values.argmax(1)] == list(svc.predict(X))
    binary = SVC().fit(X, X[:, 0] > 0)
    teacher = from_sklearn("binary", binary)
    assert teacher.classes == ("False", "True")
    values = table_of(teacher).values
    odds = torch.tensor(binary.decision_function(X)).float()
    assert torch.allclose(values[:, 1] - values[:, 0], odds, atol=1e-5)
    four = SVC(decision_function_shape="ovo").fit(X, np.argmax(X, 1))
    with pytest.raises(InputError, match="got 6 for 4 classes. Set decision_function_shape='ovr'"):
        from_sklearn("ovo", four).predict(X)
    with pytest.raises(InputError, match="classes of teacher 'forest' to be its own, cat, dog"):
        from_sklearn("forest", forest, classes=["cat", "emu", "dog"])
    with pytest.raises(InputError, match="Expected a fitted classifier for teacher 'raw'"):
        from_sklearn("raw", LogisticRegression())


def test_multi_label_classifiers_of_scikit_learn():
    labels = (X[:, :4] > [0, 0.5, 9, -9]).astype(int)  # the last two never, and always
    forest = RandomForestClassifier(5, random_state=0).fit(X, labels)
    teacher = from_sklearn("forest", forest, classes=["w", "x", "never", "always"])
    assert teacher.family == "multilabel"
    given = teacher.predict(X)
    assert np.array_equal(given[:, 0], forest.predict_proba(X)[0][:, 1])
    assert (given[:, 2] == 0).all()
    assert (given[:, 3] == 1).all()
    values = table_of(teacher).values
    assert values.shape == (60, 4, 2)
    assert values.isfinite().all()
    assert (values[:, 2, 1] < -15).all()
    rest = OneVsRestClassifier(LogisticRegression()).fit(X, labels[:, :2])
    assert np.array_equal(from_sklearn("rest", rest).predict(X), rest.predict_proba(X))
    mlp = MLPClassifier(4, max_iter=2000, tol=1e-2, random_state=0).fit(X, labels[:, :2])
    teacher = from_sklearn("mlp", mlp, family="multilabel", classes=["w", "x"])
    assert np.array_equal(teacher.predict(X), mlp.predict_proba(X))
    with pytest.raises(InputError, match="Expected 4 names of labels for teacher 'forest', but g"):
        from_sklearn("forest", forest, classes=["w"])
    several = RandomForestClassifier(2, random_state=0).fit(X, np.argsort(X, 1)[:, :2])
    with pytest.raises(InputError, match="to be 0 or 1, but got .* in output 0"):
        from_sklearn("several", several)


def test_regressors_of_scikit_learn():
    target = X[:, 0] + 0.1 * RNG.normal(size=60)
    ridge = make_pipeline(StandardScaler(), BayesianRidge()).fit(X, target)
    process = GaussianProcessRegressor(RBF() + WhiteKernel(), random_state=0).fit(X, target)
    for estimator in (ridge, process):
        teacher = from_sklearn("r", estimator, classes=["t"])
        mean, deviation = estimator.predict(X, return_std=True)
        values = table_of(teacher).values[:, 0].double()
        assert torch.allclose(values[:, 0], torch.from_numpy(mean), atol=1e-5)
        assert torch.allclose(values[:, 1], torch.from_numpy(2 * np.log(deviation)), atol=1e-5)
    both = np.stack([target, -target], 1)
    forest = RandomForestRegressor(5, random_state=0).fit(X, both)
    teacher = from_sklearn("f", forest, classes=["t", "u"])
    assert not teacher.variance
    assert table_of(teacher).values[..., 1].isnan().all()

    def spread(inputs):
        return np.var([tree.predict(inputs) for tree in forest.estimators_], 0) + 0.01

    values = table_of(from_sklearn("f", forest, classes=["t", "u"], variance=spread)).values
    assert torch.allclose(values[..., 1].double().exp(), torch.from_numpy(spread(X)), rtol=1e-5)
    with pytest.raises(InputError, match="names of the targets of teacher 'f', but got none"):
        from_sklearn("f", forest)


MODULE = """
import numpy as np
from mtbkd.teachers.base import from_callable
def make(value=1.0):
    return from_callable("mine", lambda x: np.full((len(x), 2), value), kind="logits", classes="ab")
def function():
    return lambda x: np.zeros((len(x), 2))
def fails():
    raise OSError("no weights")
nothing = dict
"""


def test_factories_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "my_teachers_module.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "my_teachers_module", raising=False)
    before = list(sys.path)
    name = "my_teachers_module"
    teacher = from_factory(f"{name}:make", tmp_path, options={"value": 2.0})
    assert sys.path == before
    assert teacher.name == "mine"
    assert teacher.predict([1]).tolist() == [[2.0, 2.0]]
    teacher = from_factory(f"{name}:function", tmp_path, name="f", kind="logits", classes="ab")
    assert (teacher.name, teacher.predict([1, 2]).shape) == ("f", (2, 2))
    for target, message in [
        ("make", "Expected a factory as 'module:function', but got 'make'"),
        ("no_such_module:make", "import the factory 'no_such_module:make', but got ModuleNotFound"),
        (f"{name}:absent", "but got AttributeError"),
        (f"{name}:fails", "to return a teacher, but got OSError: no weights"),
        (f"{name}:nothing", "Expected a module, an estimator or a function as teacher 'nothing'"),
        (f"{name}:function", "complete declaration of teacher 'function', but got: .*'kind'"),
    ]:
        with pytest.raises(InputError, match=message):
            from_factory(target, tmp_path)
    with pytest.raises(InputError, match="but got TypeError: .*wrong.*correct its options"):
        from_factory(f"{name}:make", tmp_path, options={"wrong": 1})
    assert sys.path == before


def test_adapting_by_what_it_is():
    forest = RandomForestClassifier(2, random_state=0).fit(X, Y)
    assert adapt("forest", forest).classes == ("cat", "dog", "emu")
    assert adapt("net", Net(), classes="abc").kind == "logits"
