"""Every Python snippet of the documents runs, in order, in a temporary folder."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mtbkd.app.config.run import build_config

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    *(f"docs/{name}.md" for name in ("teachers", "estimators", "python", "language_models")),
]


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """Line and text of the fenced blocks of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start(1)].count("\n"), m[1]) for m in found]


def run(page: str, *, ray: bool) -> int:
    """Execute the snippets in one namespace; returns how many."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    wanted = [(n, text) for n, text in blocks(page, "python") if ray or "_on_ray" not in text]
    for line, text in wanted:
        # so that a traceback names the line of the page
        exec(compile("\n" * line + text, str(ROOT / page), "exec"), namespace)
    return len(wanted)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The tiny models and files that the snippets speak of, in the current folder."""
    monkeypatch.chdir(tmp_path)
    onnx = pytest.importorskip("onnx")
    transformers = pytest.importorskip("transformers")
    image = pytest.importorskip("PIL.Image")
    from onnx import TensorProto, helper, numpy_helper
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    weights = np.array([[-1.0, 1.0], [0.0, 0.0]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        "model.onnx",
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {0: "bad", 1: "good"}
    tokenizer = transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})
    tokenizer.save_pretrained("text-model")
    bert = transformers.BertConfig(
        vocab_size=8, intermediate_size=8, max_position_embeddings=12, id2label=names, **tiny
    )
    transformers.BertForSequenceClassification(bert).save_pretrained("text-model")
    vit = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=2, **tiny)
    transformers.ViTForImageClassification(vit).save_pretrained("image-model")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained("image-model")
    torch.set_rng_state(state)
    for colour in ("red", "blue"):
        image.new("RGB", (8, 8), colour).save(f"{colour}.png")


@pytest.mark.parametrize("page", [page for page in PAGES if (ROOT / page).exists()])
def test_snippets_run(page, models):
    assert run(page, ray=False) >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray, and what it imports, warn about themselves
def test_snippets_run_with_ray(models):
    ray = pytest.importorskip("ray")
    place = {"env_vars": {"PYTHONPATH": str(ROOT / "src")}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=place)
    try:
        assert run("docs/teachers.md", ray=True) >= 16
    finally:
        ray.shutdown()


@pytest.mark.parametrize("page", ["docs/teachers.md", "docs/language_models.md"])
def test_configurations_are_valid(page):
    found = blocks(page, "yaml")
    assert found
    for _, text in found:
        config = build_config(yaml.safe_load(text))
        assert config.own is not None
