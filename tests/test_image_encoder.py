"""Frozen image models of Hugging Face as encoders, of tiny ones that are made here."""

import numpy as np
import pytest
import torch
from PIL import Image

from mtbkd.inputs.images.encoder import find_encoder
from mtbkd.inputs.images.kind import Images
from mtbkd.types import InputError

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=16, patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(
        tmp_path / "vit"
    )
    return tmp_path / "vit"


def test_features_are_means_of_hidden_states_and_kept(folder, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    pixels[4] = pixels[1]
    some = Images(tuple("abcde"), pixels, folder, (16, 16), 3)
    encoder = find_encoder(str(folder), "cpu", None)
    found = encoder.encode(some, lambda *_: None)
    model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = model(pixel_values=scaled).last_hidden_state.mean(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    monkeypatch.setattr("mtbkd.inputs.images.encoder.load_frozen", None)  # not asked again
    assert torch.equal(find_encoder(str(folder), "cpu", None).encode(some, lambda *_: None), found)
    grey = Images(("a",), pixels[:1, ..., 0], folder, (16, 16), 1)
    assert isinstance(grey.whole(0), Image.Image)


def test_a_model_without_its_processor_is_one_message(folder):
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match="Expected the image processor of the model"):
        find_encoder(str(folder), "cpu", None)
