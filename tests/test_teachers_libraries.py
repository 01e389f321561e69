"""Teachers from ONNX files and Hugging Face folders, made here and loaded by path."""

import numpy as np
import pytest
import torch

from mtbkd.errors import need
from mtbkd.teachers.base import check_output
from mtbkd.teachers.hugging_face import from_hugging_face
from mtbkd.teachers.labelling.convert import as_table
from mtbkd.teachers.onnx_model import from_onnx
from mtbkd.types import InputError

X = np.random.default_rng(0).normal(size=(7, 4))
WEIGHTS = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)


def test_a_library_that_is_missing_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"pip install 'mtbkd\[onnx\]'"):
        need("no_such_library", "onnx")


def write_onnx(path, rows=None, inputs=("x",)):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
        helper.make_node("Softmax", ["scores"], ["probs"], axis=1),
    ]
    if len(inputs) > 1:
        nodes[0] = helper.make_node("MatMul", ["sum", "w"], ["scores"])
        nodes.insert(0, helper.make_node("Add", list(inputs), ["sum"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(i, TensorProto.FLOAT, [rows, 4]) for i in inputs],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, [rows]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, 3]),
            helper.make_tensor_value_info("probs", TensorProto.FLOAT, [rows, 3]),
        ],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("rows", [None, 1, 3])
def test_onnx(tmp_path, rows):
    path = write_onnx(tmp_path / "model.onnx", rows)
    teacher = from_onnx("net", path, classes="abc", kind="logits")
    given = teacher.predict(X)  # of double precision, which the model does not take
    assert np.allclose(given, X @ WEIGHTS, atol=1e-5)
    assert np.array_equal(given, teacher.predict(torch.from_numpy(X)))
    probs = from_onnx("net", path, classes="abc", kind="probs", output="probs").predict(X)
    assert np.allclose(probs.sum(1), 1, atol=1e-6)
    assert len(teacher.fingerprint) == 64


def test_onnx_with_several_inputs(tmp_path):
    path = write_onnx(tmp_path / "two.onnx", inputs=("x", "y"))
    teacher = from_onnx("net", path, classes="abc", kind="logits")
    assert np.allclose(teacher.predict({"x": X, "y": X}), 2 * X @ WEIGHTS, atol=1e-5)
    with pytest.raises(InputError, match="whose model takes x, y, but got one array"):
        teacher.predict(X)
    with pytest.raises(InputError, match="Expected input 'y' for teacher 'net', but got x"):
        teacher.predict({"x": X})


def test_faults_of_onnx_files(tmp_path):
    path = write_onnx(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"Expected 3 classes of teacher 'net'.*but got 2"):
        from_onnx("net", path, classes="ab", kind="logits")
    with pytest.raises(InputError, match=r"Expected 'odds' as output .* got label \(tensor\(int6"):
        from_onnx("net", path, classes="abc", kind="logits", output="odds")
    with pytest.raises(InputError, match=r"absent.onnx for teacher 'net', but got: No such file"):
        from_onnx("net", tmp_path / "absent.onnx", classes="abc", kind="logits")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"Expected an ONNX model in .*model.onnx .*Export it ag"):
        from_onnx("net", path, classes="abc", kind="logits")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def write_bert(transformers, folder, **config):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    folder.mkdir()
    tokenizer = transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)})
    tokenizer.save_pretrained(folder)
    settings = transformers.BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
        **config,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(settings).eval()
    model.save_pretrained(folder)
    return tokenizer, model


def test_texts(transformers, tmp_path):
    state = torch.get_rng_state()
    names = {0: "NEG", 1: "POS", 2: "?"}
    tokenizer, model = write_bert(transformers, tmp_path / "bert", id2label=names)
    torch.set_rng_state(state)
    teacher = from_hugging_face("bert", tmp_path / "bert", device="cpu", batch_size=2, top=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert teacher.classes == ("NEG", "POS", "?")
    assert (teacher.family, teacher.kind) == ("classification", "logits")
    texts = ["good film", "bad", "film " * 40]
    given = teacher.predict(texts)
    for text, row in zip(texts, given, strict=True):
        alone = tokenizer(text, truncation=True, max_length=12, return_tensors="pt")
        with torch.no_grad():
            assert torch.allclose(model(**alone).logits[0], row, atol=1e-5)
    numbers = check_output(teacher, given, rows=3, where="batch 0")
    assert as_table(teacher, numbers, ["a", "b", "c"]).kept.shape == (3, 2)


def test_several_labels_and_targets(transformers, tmp_path):
    state = torch.get_rng_state()
    write_bert(
        transformers, tmp_path / "m", num_labels=2, problem_type="multi_label_classification"
    )
    write_bert(transformers, tmp_path / "r", num_labels=1)
    torch.set_rng_state(state)
    labels = from_hugging_face("m", tmp_path / "m", device="cpu")
    assert (labels.family, labels.kind) == ("multilabel", "logits")
    target = from_hugging_face("r", tmp_path / "r", device="cpu")
    assert (target.family, target.kind) == ("regression", "mean")
    assert target.predict(["good", "bad film"]).shape == (2, 1)


def test_images_without_torchvision(transformers, tmp_path):
    from PIL import Image

    size = {"height": 8, "width": 8}
    settings = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=2,
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(settings).eval()
    torch.set_rng_state(state)
    model.save_pretrained(tmp_path)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    ViTImageProcessorPil(size=size).save_pretrained(tmp_path)
    teacher = from_hugging_face("vit", tmp_path, task="image", device="cpu", batch_size=2)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    given = teacher.predict([Image.fromarray(p) for p in pixels])
    scaled = torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        assert torch.allclose(model(scaled).logits, given, atol=1e-4)
    assert teacher.classes == ("LABEL_0", "LABEL_1")


def test_faults_of_folders_and_ids(transformers, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="at 'no/such-model' for teacher 't', but got"):
        from_hugging_face("t", "no/such-model")
    with pytest.raises(InputError, match="Expected a text classifier .*absent"):
        from_hugging_face("t", tmp_path / "absent")
    with pytest.raises(InputError, match="Expected the task of teacher 't' among text, image"):
        from_hugging_face("t", tmp_path, task="sound")
    state = torch.get_rng_state()
    _, model = write_bert(transformers, tmp_path / "bert", num_labels=2)
    torch.set_rng_state(state)
    model.bert.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match=r"but 'classifier.bias' is missing \(2 such\)"):
        from_hugging_face("t", tmp_path / "bert")
    (tmp_path / "bert" / "model.safetensors").unlink()
    model.config.save_pretrained(tmp_path / "bert")
    torch.save(model.state_dict(), tmp_path / "bert" / "pytorch_model.bin")  # a pickle
    with pytest.raises(InputError, match="Expected a text classifier with safetensors weights"):
        from_hugging_face("t", tmp_path / "bert")
