"""Features of proteins: batches by a budget of tokens, beside padding all to 1,000 residues.

    MTBKD_DATA=... python benchmarks/backbones.py

The model has the shape of ESM-2 8M (6 layers, width 320, 20 heads) and random weights, which cost
as much as trained ones. Both ways run it on the same proteins, in blocks that take turns, on one
thread, with as many tokens in a batch; times are CPU seconds, so that other work on the machine
counts little.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import torch
import transformers
from torch import Tensor

from mtbkd.inputs.proteins.backbone import Backbone, load_backbone
from mtbkd.inputs.proteins.embedding import embed

LONGEST = 1000  # residues; of longer proteins both ways show both ends
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZO"
WORDS = ["<cls>", "<pad>", "<eos>", "<unk>", *LETTERS, ".", "-", "<null_1>", "<mask>"]


def esm_8m(folder: Path) -> Backbone:
    torch.manual_seed(0)
    (folder / "words").write_text("\n".join(WORDS))
    transformers.EsmTokenizer(str(folder / "words")).save_pretrained(folder)
    config = transformers.EsmConfig(
        vocab_size=len(WORDS),
        hidden_size=320,
        num_hidden_layers=6,
        num_attention_heads=20,
        intermediate_size=1280,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        pad_token_id=1,
        mask_token_id=len(WORDS) - 1,
    )
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(folder)
    return load_backbone(folder, device="cpu", limit=LONGEST)


def padded(backbone: Backbone, sequences: list[str], rows: int) -> Tensor:
    """Every protein filled up to 1,000 residues, in the order given."""
    tokenizer = transformers.EsmTokenizer.from_pretrained(backbone.files.folder)
    features = []
    for start in range(0, len(sequences), rows):
        shown = [backbone.cut(s) for s in sequences[start : start + rows]]
        read = tokenizer(shown, padding="max_length", max_length=LONGEST + 2, return_tensors="pt")
        hidden = backbone.loaded.hidden(read["input_ids"], read["attention_mask"])
        for row, sequence in enumerate(shown):
            features.append(hidden[row, 1 : 1 + len(sequence)].mean(0))
    return torch.stack(features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proteins", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=2048)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = Path(os.environ["MTBKD_DATA"]) / "deeploc2_mtbkd" / "data_our_test.csv"
    with source.open(newline="") as file:
        proteins = [row["Sequence"] for row in csv.DictReader(file)][: asked.proteins]
    with tempfile.TemporaryDirectory() as folder:
        backbone = esm_8m(Path(folder))
        rows = max(1, asked.max_tokens // (LONGEST + 2))
        padded(backbone, proteins[:2], rows)  # warm
        seconds, worst, largest = [0.0, 0.0], 0.0, 0.0
        size = -(-len(proteins) // asked.blocks)
        for start in range(0, len(proteins), size):
            block = proteins[start : start + size]
            begin = time.process_time()
            ours = embed(backbone, block, max_tokens=asked.max_tokens)
            between = time.process_time()
            theirs = padded(backbone, block, rows)
            seconds[0] += between - begin
            seconds[1] += time.process_time() - between
            worst = max(worst, (ours - theirs).abs().max().item())
            largest = max(largest, theirs.abs().max().item())
    lengths = [min(len(p), LONGEST) for p in proteins]
    print(f"{len(proteins)} proteins of {sum(lengths) / len(lengths):.0f} residues on average")
    print(f"by tokens      {1000 * seconds[0] / len(proteins):8.1f} ms a protein")
    print(f"padded to 1000 {1000 * seconds[1] / len(proteins):8.1f} ms a protein")
    print(f"ratio          {seconds[1] / seconds[0]:8.2f}")
    print(f"largest difference {worst:.1e}, of features up to {largest:.2f}")


if __name__ == "__main__":
    main()
