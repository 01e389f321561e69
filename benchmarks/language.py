"""Rows per second of a language model in memory, what all prompts share computed once or not.

python benchmarks/language.py MODEL.gguf [--rows 24]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from mtbkd.app.recipes.news import CLASSES, FILES, read_news
from mtbkd.teachers.language.local import _load, _tokens
from mtbkd.teachers.language.prompt import Prompt, Shot, choose_shots
from mtbkd.teachers.language.scoring import Scorer

TEXTS = (("World",), ("Sports",), ("Business",), ("Technology",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="A folder, a GGUF file or an id on the hub.")
    parser.add_argument("--rows", type=int, default=24)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    news = read_news(Path(os.environ["MTBKD_DATA"]) / "text" / FILES[0])
    says = [(CLASSES[label],) for label in news.labels]
    shown = choose_shots(says, range(len(says)), 8)
    shots = tuple(Shot({"text": news.texts[row]}, says[row]) for row in shown)
    prompt = Prompt("Article: {{ text }}\nTopic:", CLASSES, TEXTS, shots=shots)
    model, tokenizer, _ = _load(asked.model, torch.float32)
    rows = [{"text": text} for text in news.texts[-asked.rows :]]
    texts = [_tokens(tokenizer, prompt, False, prompt.questions(row)[0]) for row in rows]
    speeds, scores = [], []
    for shares in (True, False):
        start = time.perf_counter()
        scores.append(torch.stack(Scorer(model.eval(), shares_prefix=shares).scores(texts)))
        speeds.append(len(rows) / (time.perf_counter() - start))
        print(f"{'shared' if shares else 'anew':>7}: {speeds[-1]:.2f} rows/s")
    gap = float((scores[0] - scores[1]).abs().max())
    print(f"ratio {speeds[0] / speeds[1]:.2f}; scores differ by {gap:.1e} nats at most")


if __name__ == "__main__":
    main()
