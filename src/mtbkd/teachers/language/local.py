"""Teachers that are causal language models of transformers, GGUF files among them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mtbkd.errors import need
from mtbkd.files import sha256_of
from mtbkd.inputs.cache import cache_root, keep, key_of, recall
from mtbkd.inputs.models import first_line
from mtbkd.student.devices import find_device
from mtbkd.teachers.base import Teacher, fingerprint_of, from_callable
from mtbkd.teachers.language.prompt import Prompt, Row, Turn, as_messages, as_text
from mtbkd.teachers.language.scoring import Scorer, plain_scores
from mtbkd.types import Floats, InputError

_HALVES = 0.1  # nats that half precision may cost in a few tokens


@dataclass(frozen=True)
class Running:
    """How a model runs.

    Attributes:
        chat: Whether it is asked through its chat template; None if it has one.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.
        precision: What its weights are held in.
        max_tokens: Most tokens of a batch.
    """

    chat: bool | None = None
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    max_tokens: int = 2048


def from_language_model(
    name: str,
    path_or_id: str | Path,
    prompt: Prompt,
    running: Running = Running(),
    *,
    store: Path | None = None,
    **declared: Any,
) -> Teacher:
    """A teacher from a causal language model; needs ``pip install 'mtbkd[llm]'``.

    It takes rows, mappings from column to cell. A class is as probable as its texts together, each
    of them whole: the sum of the log-probabilities of its tokens. A longer text is therefore less
    probable, for all rows alike; `mtbkd.teachers.language.bias` removes that.

    Weights are read from safetensors or from a GGUF file, and no code of a repository is run.

    Args:
        name: What the teacher is called.
        path_or_id: A folder that ``save_pretrained`` wrote, a GGUF file, or an id on the hub.
        prompt: What is asked about a row.
        running: How the model runs.
        store: Folder for answers, which are found by their content; the user's cache if not given.
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the model cannot be loaded, or has no chat template where one is wanted.
    """
    try:
        loaded = _load(str(path_or_id), getattr(torch, running.precision))
    except InputError:
        raise
    except Exception as error:  # transformers raises nearly everything for what is not there
        raise InputError(
            f"Expected a causal language model with safetensors weights, or a GGUF file, at "
            f"{str(path_or_id)!r} for teacher {name!r}, but got: {first_line(error)}. Check the "
            "path or id, and the network if it is an id."
        ) from None
    model, tokenizer, digest = loaded
    model = model.to(find_device(running.device)).eval()
    chat = bool(tokenizer.chat_template) if running.chat is None else running.chat
    if chat and not tokenizer.chat_template:
        raise InputError(
            f"Expected a chat template of the model {str(path_or_id)!r} of teacher {name!r}, but "
            "it has none. Leave out chat."
        )
    scorer = Scorer(model, running.max_tokens)
    _check(name, scorer)
    ways = [len(texts) for texts in prompt.answers]

    identity = json.dumps([digest, prompt.fingerprint, chat, running.precision])
    kept = (store or cache_root() / "answers") / hashlib.sha256(identity.encode()).hexdigest()[:16]

    def score(questions: Sequence[tuple[Turn, ...]]) -> torch.Tensor:
        found = scorer.scores([_tokens(tokenizer, prompt, chat, one) for one in questions])
        each = [torch.stack([part.logsumexp(0) for part in one.split(ways)]) for one in found]
        return torch.stack(each).float()

    def predict(rows: Sequence[Row]) -> Floats:
        questions = [question for row in rows for question in prompt.questions(row)]
        keys = [key_of(json.dumps(question)) for question in questions]
        scores, known = recall(kept, keys, len(ways))
        fresh = (~known).nonzero()[:, 0].tolist()
        if fresh:
            scores[fresh] = score([questions[row] for row in fresh])
            keep(kept, [keys[row] for row in fresh], scores[fresh])
        if prompt.exclusive:
            return scores.double().numpy()
        return np.diff(scores.double().numpy())[:, 0].reshape(len(rows), -1)

    declared.setdefault("fingerprint", hashlib.sha256(identity.encode()).hexdigest())
    declared.setdefault("parameters", sum(p.numel() for p in model.parameters()))
    declared["family"] = "classification" if prompt.exclusive else "multilabel"
    return from_callable(name, predict, kind="logits", classes=prompt.classes, **declared)


def _check(name: str, scorer: Scorer) -> None:
    """Refuse a model that does not heed what each token may see, as some architectures do."""
    texts = [[[1, 2, 3, 4, *tail] for tail in ([1, 2], [3, 4, 5], [2])]]
    texts.append([[1, 2, 3, 5, 6, 7, *tail] for tail in ([3, 4, 1], [1])])
    try:
        pairs = zip(texts, (4, 6), scorer.scores(texts), strict=True)
        same = all(
            torch.allclose(scores, plain_scores(scorer.model, text, start), atol=_HALVES)
            for text, start, scores in pairs
        )
    except Exception:  # whatever it raises that does not take what it is given
        same = False
    if not same:
        raise InputError(
            f"Expected a model for teacher {name!r} of which several continuations can be scored "
            f"side by side, but got {type(scorer.model).__name__}, which cannot. Ask it behind a "
            "server."
        )


def _tokens(
    tokenizer: Any, prompt: Prompt, chat: bool, question: tuple[Turn, ...]
) -> list[list[int]]:
    """Prompt and answer for each text of each class, as tokens."""
    if chat:
        text = tokenizer.apply_chat_template(
            as_messages(question, prompt.system), tokenize=False, add_generation_prompt=True
        )
        gap = ""
    else:
        text, gap = as_text(question, prompt.system)
    said = [f"{text}{gap}{one}" for texts in prompt.answers for one in texts]
    # a chat template writes the special tokens itself
    return tokenizer(said, add_special_tokens=not chat).input_ids


@lru_cache(maxsize=1)  # several prompts of one model are several teachers
def _load(source: str, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """Model, tokenizer, and a hash of the weights."""
    transformers = need("transformers", "llm")
    if source.endswith(".gguf"):
        return _load_gguf(transformers, Path(source), dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return model, tokenizer, fingerprint_of(model.state_dict())


def _load_gguf(transformers: Any, path: Path, dtype: torch.dtype) -> tuple[Any, Any, str]:
    """By the parts of transformers' own loader, which as a whole wants accelerate as well."""
    need("gguf", "llm")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    config = transformers.AutoConfig.from_pretrained(**place)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    found = load_gguf_checkpoint(
        str(path), return_tensors=True, model_to_load=model, torch_dtype=dtype
    )
    model.load_state_dict(found["tensors"], strict=False, assign=True)
    model.tie_weights()
    return model, transformers.AutoTokenizer.from_pretrained(**place), sha256_of(path)
