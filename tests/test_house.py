"""The house's rules that no linter knows; docs/design.md says why each."""

import ast
import re
import statistics
from functools import cache
from pathlib import Path

import pytest

import mtbkd

SRC = Path(mtbkd.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
LIBRARY_WRITERS = {"files.py"}
OTHERS_WRITERS = {"pq.write_table", "pa_csv.write_csv"}
MANY_PARAMETERS = {"distill", "__init__"}  # `distill`, and scikit-learn's way of settings
SWITCH = re.compile(r"\bfamily (?:==|!=|in|not in) ")


@cache
def code_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_few_modules_lie_loose():
    assert len(list(SRC.glob("*.py"))) <= 8


def test_files_are_read_in_one_go():
    sizes = {name_of(path): lines_of(path) for path in FILES}
    assert sum(sizes.values()) <= 44_200
    assert statistics.median(sizes.values()) <= 160
    assert {name: size for name, size in sizes.items() if size > 330} == {}


def test_functions_take_eight_parameters_at_most():
    found = {}
    for path in FILES:
        for node in ast.walk(code_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [one.arg for one in given if one.arg not in ("self", "cls")]
                if len(names) > 8 and node.name not in MANY_PARAMETERS:
                    found[f"{name_of(path)}:{node.name}"] = names
    assert found == {}


def test_a_family_is_asked_not_compared():
    found = [
        f"{name_of(path)}: {line.strip()}"
        for path in FILES
        if not name_of(path).startswith("observation/")
        for line in path.read_text(encoding="utf-8").splitlines()
        if SWITCH.search(line)
    ]
    assert len(found) <= 10, "\n".join(found)


@pytest.mark.parametrize("name", ["assert", "pickle", "torch.load", "manual_seed", "seed"])
def test_it_is_safe(name):
    """No assertion guards a user's input, nothing is unpickled, no global seed is touched."""
    found = []
    for path in FILES:
        for node in ast.walk(code_of(path)):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            bad = {
                "assert": isinstance(node, ast.Assert),
                "pickle": isinstance(node, ast.Import | ast.ImportFrom)
                and "pickle" in ast.unparse(node),
                "torch.load": call == "torch.load" and "weights_only=True" not in ast.unparse(node),
                "manual_seed": call == "torch.manual_seed",
                "seed": call in ("np.random.seed", "random.seed"),
            }[name]
            if bad:
                found.append(f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def written(call: ast.Call) -> str | None:
    """The place that a call writes to, as it stands there; None if it does not write."""
    name = ast.unparse(call.func).rpartition(".")[2]
    held = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else None
    if name == "open":
        given = [*call.args, *(word.value for word in call.keywords)]
        modes = [str(one.value) for one in given if isinstance(one, ast.Constant)]
        return held or "open" if any(re.fullmatch("[rbt]*[wax+][bt+]*", m) for m in modes) else None
    if name == "save_file" or ast.unparse(call.func) in OTHERS_WRITERS:
        return ast.unparse(call.args[1])
    return held if name in ("write_text", "write_bytes") else None


def test_one_file_writes():
    """Whole or not at all: the rest hands `mtbkd.files` its bytes, or writes where that lets it."""
    found = []
    for path in FILES:
        if name_of(path) in LIBRARY_WRITERS:
            continue
        text, code = path.read_text(encoding="utf-8"), list(ast.walk(code_of(path)))
        lent = re.findall(r"\breplacing\(.*\) as (\w+)", text)
        lent += re.findall(r"(\w+) = \w+\.enter_context\(replacing\(", text)
        places = [written(node) for node in code if isinstance(node, ast.Call)]
        found += [f"{name_of(path)}: {place}" for place in places if place not in (None, *lent)]
        named = re.sub(r"\.(?:endswith|glob)\([^)]*\)", "", text)
        found += re.findall(r".*\.partial[\"'].*", named)
    assert found == []


def test_docstrings_are_sentences():
    """An entry says what a thing is: "Of each chain" is no sentence."""
    found = [
        f"{name_of(path)}: {line.strip()}"
        for path in FILES
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r" +[a-z_]+: Of ", line) or re.match(r' +"""Of ', line)
    ]
    assert found == []
