"""An exported folder whose student is made up: small, quick to make, and answers as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from mtbkd.explain.causes import FLAGS
from mtbkd.files import save_json, save_sealed, save_tensors, sha256_of

CLASSES = ["a", "b", "c"]
COLUMNS = ["x1", "x2", "x3"]
SIDE = 6
POLICY = {
    "goal": {"accuracy": 0.9},
    "confidence": 0.95,
    "score": "max probability",
    "above": [0.6],
}
_FLOATS = ("probs", "lower", "upper")
_NUMBERS = ("total", "aleatoric", "epistemic", "outside", "reliable", "dissent", "pool")


def weights(n: int) -> np.ndarray:
    """Of the only layer, (input, class)."""
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def ship(folder: Path, *, pictures: bool = False, defer: Any = None) -> Path:
    """Write a folder as `mtbkd export` does."""
    n = SIDE**2 if pictures else 3
    shape = [1, SIDE, SIDE] if pictures else [3]
    chance = np.random.default_rng(1)
    inputs = chance.integers(256, size=(7, *shape)).astype(np.uint8 if pictures else np.float32)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(_graph(n, shape, inputs, pictures).SerializeToString())
    said = chance.dirichlet(np.ones(3), size=(2, 7)).astype(np.float32)
    said[1, 0] = np.nan
    save_tensors(
        folder / "examples.safetensors",
        {
            "said": torch.from_numpy(said),
            "labels": torch.tensor([0, 1, 2, -1, 0, 1, 2]),
            "inputs": torch.from_numpy(inputs),
        },
    )
    save_json(
        folder / "examples.json", {"ids": [f"e{i}" for i in range(7)], "teachers": ["one", "two"]}
    )
    outputs = [
        *({"name": name, "shape": [3], "dtype": "float32"} for name in _FLOATS),
        *({"name": name, "shape": [], "dtype": "float32"} for name in _NUMBERS),
        {"name": "set", "shape": [3], "dtype": "bool"},
        {"name": "flag", "shape": [], "dtype": "int64"},
        {"name": "distances", "shape": [5], "dtype": "float32"},
        {"name": "nearest", "shape": [5], "dtype": "int64"},
    ]
    config = {
        "task": "made up",
        "family": "classification",
        "classes": CLASSES,
        "level": 0.9,
        "draws": 1,
        "summary": "Sampled: nothing.",
        "inputs": {
            "what": "images of 1 by 6 by 6 bytes" if pictures else f"the columns {COLUMNS}",
            "shape": shape,
            "dtype": "uint8" if pictures else "float32",
            "raw": True,
            "columns": [] if pictures else COLUMNS,
            "grid": None,
        },
        "outputs": outputs,
        "flags": list(FLAGS),
        "defer": defer,
    }
    save_json(folder / "config.json", config)
    reseal(folder)
    return folder


def reseal(folder: Path) -> None:
    """Write the manifest again, as if all files were as they were exported."""
    hashes = {p.name: sha256_of(p) for p in sorted(folder.iterdir()) if p.name != "manifest.json"}
    save_sealed(folder / "manifest.json", {"opset": 20, "sha256": hashes})


def _graph(n: int, shape: list[int], examples: np.ndarray, pictures: bool) -> Any:
    kept = {
        "w": weights(n),
        "e": examples.reshape(7, n).astype(np.float32),
        "half": np.float32(0.5),
        "one": np.float32(1),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
        "flat": np.array([-1, n]),
        "five": np.array([5]),
        "no": np.array(-1),
        "ambiguous": np.array(3),
        "scale": np.float32(1 / 64 if pictures else 1),
    }

    def node(kind: str, inputs: str, outputs: str, **more: Any) -> Any:
        return helper.make_node(kind, inputs.split(), outputs.split(), **more)

    nodes = [
        node("Cast", "inputs", "numbers", to=TensorProto.FLOAT),
        node("Reshape", "numbers flat", "rows"),
        node("Mul", "rows scale", "scaled"),
        node("MatMul", "scaled w", "logits"),
        node("Softmax", "logits", "probs", axis=-1),
        node("Mul", "probs half", "lower"),
        node("Max", "probs half", "upper"),
        node("ReduceMax", "probs axis1", "reliable", keepdims=0),
        node("Sub", "one reliable", "total"),
        node("Mul", "total half", "aleatoric"),
        node("Sub", "total aleatoric", "epistemic"),
        *(node("Identity", "reliable", name) for name in ("outside", "dissent", "pool")),
        node("GreaterOrEqual", "probs half", "set"),
        node("GreaterOrEqual", "reliable half", "sure"),
        node("Where", "sure no ambiguous", "flag"),
        node("Unsqueeze", "rows axis1", "each"),
        node("Sub", "each e", "gap"),
        node("Mul", "gap gap", "square"),
        node("ReduceSum", "square axis2", "far", keepdims=0),
        node("Sqrt", "far", "root"),
        node("TopK", "root five", "distances nearest", axis=1, largest=0),
    ]
    kind = {"set": TensorProto.BOOL, "flag": TensorProto.INT64, "nearest": TensorProto.INT64}
    ends = [
        helper.make_tensor_value_info(name, kind.get(name, TensorProto.FLOAT), None)
        for name in (*_FLOATS, *_NUMBERS, "set", "flag", "distances", "nearest")
    ]
    begin = helper.make_tensor_value_info(
        "inputs", TensorProto.UINT8 if pictures else TensorProto.FLOAT, [None, *shape]
    )
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in kept.items()]
    graph = helper.make_graph(nodes, "made up", [begin], ends, held)
    return helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
