"""Generated news and tiny text models with random weights, as their folders look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from own_data import write_config, write_csv

TOPICS = ("sport", "money", "sky")
WORDS = {
    "sport": "ball goal team match coach league player".split(),
    "money": "bank price market profit share trade bond".split(),
    "sky": "star moon cloud planet rain comet light".split(),
}
COMMON = "the a of and to in on is was said that it".split()
ROWS = 90


def news(n: int = ROWS, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of ten words, four of them about their topic, and the number of each topic."""
    chance = np.random.default_rng(seed)
    topics = np.arange(n) % 3
    texts = []
    for topic in topics:
        words = [*chance.choice(WORDS[TOPICS[topic]], 4), *chance.choice(COMMON, 6)]
        texts.append(" ".join(chance.permutation(words)))
    return texts, topics


def write_news(folder: Path, **own: object) -> Path:
    """Examples, a teacher's table, and a configuration; a fifth of the labels is missing."""
    texts, topics = news()
    rows: list[list[object]] = [
        [f"n{i}", text, "" if i % 5 == 4 else TOPICS[topic]]
        for i, (text, topic) in enumerate(zip(texts, topics, strict=True))
    ]
    write_csv(folder / "examples.csv", ["id", "words", "label"], rows)
    said = 0.7 * np.eye(3)[topics] + 0.1
    table: list[list[object]] = [[f"n{i}", *row] for i, row in enumerate(said.tolist())]
    write_csv(folder / "desk.csv", ["id", *TOPICS], table)
    desk = {"desk": {"table": "desk.csv", "kind": "probs"}}
    path = write_config(folder, desk, text="words", **own)
    written = yaml.safe_load(path.read_text()) | {"map": {"epochs": 40, "batch_size": 16}}
    path.write_text(yaml.safe_dump(written))
    return path


def write_bert(folder: Path, *, seed: int = 0, pad: int = 0, **settings: object) -> Path:
    """A BERT of 2 layers and width 16, which knows the words of the generated news."""
    import transformers

    _write_tokenizer(folder, pad)
    config = transformers.BertConfig(
        **{
            "vocab_size": 5 + len(_known()),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
            "pad_token_id": pad,
        }
        | settings
    )
    return _save(transformers.BertModel(config), folder, seed)


def write_gpt(folder: Path) -> Path:
    """A decoder, which has no token for padding."""
    import transformers

    _write_tokenizer(folder, None)
    config = transformers.GPT2Config(
        vocab_size=5 + len(_known()), n_positions=32, n_embd=16, n_layer=2, n_head=2
    )
    return _save(transformers.GPT2Model(config), folder, 0)


def write_t5(folder: Path) -> Path:
    """An encoder with a decoder, which features do not need."""
    import transformers

    _write_tokenizer(folder, 0)
    config = transformers.T5Config(
        vocab_size=5 + len(_known()), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    return _save(transformers.T5Model(config), folder, 0)


def as_sentence_transformer(folder: Path, *kinds: str, length: int = 8, **pooling: bool) -> Path:
    """Beside a model what a folder of sentence-transformers says of pooling."""
    kinds = kinds or ("Transformer", "Pooling", "Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    chosen = pooling or {"pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(chosen))
    return folder


def _known() -> list[str]:
    return [*COMMON, *(word for words in WORDS.values() for word in words)]


def _write_tokenizer(folder: Path, pad: int | None) -> None:
    import tokenizers
    import transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_known()]
    if pad:
        words[0], words[pad] = words[pad], words[0]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if pad is not None:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            special_tokens=[(word, words.index(word)) for word in ("[CLS]", "[SEP]")],
        )
    special = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    special |= {} if pad is None else {"pad_token": "[PAD]", "cls_token": "[CLS]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)


def _save(model, folder: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    # larger than they start, so that words and positions matter
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.eval().save_pretrained(folder)
    return folder
