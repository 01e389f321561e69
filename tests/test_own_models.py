"""Models of other libraries as one's own teachers, which a run directory may load too."""

import numpy as np
import pytest
import torch
from own_data import CLASSES, ROWS, call, points, write_config, write_csv

from mtbkd.outputs.store import load_outputs


def write_models(folder) -> None:
    """An ONNX file, a classifier of texts and one of images, all tiny."""
    onnx = pytest.importorskip("onnx")
    transformers = pytest.importorskip("transformers")
    from onnx import TensorProto, helper, numpy_helper
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    weights = np.array([[2, 0, -1], [0, 2, -1]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "model.onnx",
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    tiny: dict = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "initializer_range": 1.0,
    }
    names = dict(enumerate(CLASSES))
    tokenizer = transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})
    tokenizer.save_pretrained(folder / "bert")
    bert = transformers.BertConfig(
        vocab_size=8, intermediate_size=8, max_position_embeddings=12, id2label=names, **tiny
    )
    transformers.BertForSequenceClassification(bert).save_pretrained(folder / "bert")
    vit = transformers.ViTConfig(image_size=8, patch_size=4, id2label=names, **tiny)
    transformers.ViTForImageClassification(vit).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder / "vit")
    torch.set_rng_state(state)


def test_models_are_asked_also_from_a_run_directory(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    write_models(tmp_path)
    x, label = points()
    for colour in ("red", "blue"):
        image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.png")
    rows = [
        [f"e{i}", *x[i].tolist(), CLASSES[label[i]], ("good film", "bad")[i % 2]]
        + ["lost.png" if i == 5 else ("red.png", "blue.png")[i % 2]]
        for i in range(ROWS)
    ]
    write_csv(tmp_path / "examples.csv", ["id", "x1", "x2", "label", "text", "path"], rows)
    teachers = {
        "scorer": {"onnx": "model.onnx", "kind": "logits", "classes": CLASSES},
        "bert": {"hugging_face": "bert", "reads": "text", "device": "cpu"},
        "vit": {"hugging_face": "vit", "task": "image", "reads": "path", "device": "cpu"},
    }
    path = write_config(tmp_path, teachers)
    out = tmp_path / "run"
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", out)
    assert code == 2
    assert "lost.png" in err
    code, said, err = call(monkeypatch, capsys, "teach", out, "--most-failures", 0.1)
    assert code == 0, err
    assert "vit: 60 rows labelled, 1 failed" in said
    outputs = load_outputs(out / "teachers")
    numbers = [int(key[1:]) for key in outputs.ids]
    wanted = x[numbers].astype(np.float32) @ np.array([[2, 0, -1], [0, 2, -1]], np.float32)
    torch.testing.assert_close(
        outputs.values[0],
        torch.log_softmax(torch.from_numpy(wanted), -1).clamp_min(-16),
        atol=1e-3,
        rtol=1e-3,
    )
    even = torch.tensor([n % 2 == 0 for n in numbers])
    for teacher in (1, 2):
        mask = outputs.mask[teacher]
        assert len(outputs.values[teacher][even & mask].round(decimals=4).unique(dim=0)) == 1
        assert len(outputs.values[teacher][mask].round(decimals=4).unique(dim=0)) == 2
    assert not outputs.mask[2, numbers.index(5)]
    assert outputs.mask[:2].all()
    assert '"parameters"' in (out / "teachers" / "costs.json").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray, and what it imports, warn about themselves
def test_ray_gives_the_same_bytes(tmp_path, monkeypatch, capsys):
    ray = pytest.importorskip("ray")
    write_models(tmp_path)
    x, label = points()
    rows = [[f"e{i}", *x[i].tolist(), CLASSES[label[i]]] for i in range(ROWS)]
    write_csv(tmp_path / "examples.csv", ["id", "x1", "x2", "label"], rows)
    teacher = {"onnx": "model.onnx", "kind": "logits", "classes": CLASSES}
    path = write_config(tmp_path, {"scorer": teacher})
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for name, more in (("alone", []), ("ray", ["--ray"])):
            code, _, err = call(
                monkeypatch,
                capsys,
                "teach",
                path,
                "--out",
                tmp_path / name,
                "--shard-rows=20",
                *more,
            )
            assert code == 0, err
    finally:
        ray.shutdown()
    alone, together = (tmp_path / name / "teachers" for name in ("alone", "ray"))
    for name in ("outputs.safetensors", "manifest.json", "labels/scorer/journal.jsonl"):
        assert (alone / name).read_bytes() == (together / name).read_bytes()
