"""Tiny protein language models with random weights, as their folders look."""

from pathlib import Path

import torch

LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"
ESM_WORDS = ["<cls>", "<pad>", "<eos>", "<unk>", *LETTERS, ".", "-", "<null_1>", "<mask>"]
POSITIONS = 24  # so that an ESM sees 20 residues


def write_esm(folder: Path, *, seed: int = 0, words: list[str] | None = None, **config) -> Path:
    """An ESM-2 of 2 layers and width 16."""
    import transformers

    words = words or ESM_WORDS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text("\n".join(words))
    transformers.EsmTokenizer(str(folder / "words.txt")).save_pretrained(folder)
    (folder / "words.txt").unlink()
    settings = {
        "vocab_size": len(ESM_WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": POSITIONS,
        "position_embedding_type": "rotary",
        "token_dropout": True,
        "emb_layer_norm_before": False,
        "pad_token_id": 1,
        "mask_token_id": len(ESM_WORDS) - 1,
    }
    model_config = transformers.EsmConfig(**settings | config)
    return _save(transformers.EsmModel, model_config, folder, seed)


def write_t5(folder: Path, *, seed: int = 0, dtype: torch.dtype | None = None) -> Path:
    """The encoder of a T5 of 2 layers and width 16."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{letter}", -2.0 - i / 10) for i, letter in enumerate(LETTERS)]
    transformers.T5Tokenizer(vocab=pieces, extra_ids=100).save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(pieces) + 100,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        dropout_rate=0.0,
    )
    return _save(transformers.T5EncoderModel, config, folder, seed, dtype)


def _save(kind, config, folder, seed, dtype=None):
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = kind(config).eval()
    # larger than they start, so that residues and positions matter
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = torch.randn(parameter.shape) * 0.3
    torch.set_rng_state(state)
    (model if dtype is None else model.to(dtype)).save_pretrained(folder)
    return folder
