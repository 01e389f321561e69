"""Causal language models with random weights, and a tokenizer of words."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]


def tiny(architecture: str, seed: int = 0):
    """A model with random weights, three times as large as usual, so that it is sure of things."""
    t = transformers
    if architecture == "gpt2":
        config = t.GPT2Config(
            vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=None,
            eos_token_id=None,
        )  # fmt: skip
    elif architecture == "gemma3":
        config = t.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=LAYERS)
    elif architecture == "mistral":
        config = t.MistralConfig(**SHAPE, sliding_window=8)
    else:
        config = t.LlamaConfig(**SHAPE)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(seed)
        model = t.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model


WORDS = "<unk> a b Topic : World Sports the world cup vote user model Yes No ? Is it"


def write_language_model(folder: Path, template: str | None = None) -> dict[str, int]:
    """A Llama and its tokenizer in a folder; returns the number of each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    number = {word: i for i, word in enumerate(WORDS.split())}
    tokenizer = Tokenizer(models.WordLevel(number, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    tiny("llama").save_pretrained(folder)
    return number
