"""``benchmark.py serve``: many clients at once against the same requests one after the other, on loopback.

Every answer is compared with the one that the model gives to the prompt alone: they must be equal token by token, or
part where the two best scores differ by less than ``--tie``.
"""

import argparse
import http.client
import json
import random
import statistics
import string
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse


def add_parser(commands: Any) -> None:
    """Adds the benchmark's options."""
    parser = commands.add_parser("serve", help=__doc__.split(":")[1].strip().split("\n")[0], description=__doc__)
    for name, default in (
        ("clients", 64), ("requests", 128), ("slots", 16), ("prompt", 48), ("new_tokens", 48), ("d_model", 384),
        ("layers", 6), ("heads", 6), ("context", 256), ("threads", 2), ("seed", 0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--tie", type=float, default=1e-4, help="default: %(default)s")
    parser.set_defaults(run=run)


def model_of(options: argparse.Namespace) -> Any:
    """A random model over printable characters, its most probable token mostly clear."""
    import torch

    from lit_transformer.data.tokenizers import Character
    from lit_transformer.dims import Dims
    from lit_transformer.generation import Model
    from lit_transformer.networks import DecoderOnly

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = Character([]).build(iter([string.printable]))
    network = DecoderOnly(tokenizer.vocabulary(options.context), Dims(options.d_model, options.layers, options.heads))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
    return Model(network.eval(), tokenizer)


def ask(address: str, prompt: str, tokens: int) -> tuple[str, float]:
    """An answer, and how long it took; refusals of a full queue are waited for."""
    where = urlparse(address)
    began = time.perf_counter()
    while True:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=600)
        body = json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        if answer.status == 200:
            return content["choices"][0]["text"], time.perf_counter() - began
        if answer.status != 429:
            raise RuntimeError(content["error"]["message"])
        time.sleep(0.05)


def asked_by(clients: int, address: str, prompts: list[str], tokens: int) -> tuple[list[str], dict[str, float]]:
    """All answers, asked for by so many clients at once, with what it took."""
    found: list[tuple[str, float] | None] = [None] * len(prompts)
    numbers, lock = iter(range(len(prompts))), threading.Lock()

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            found[number] = ask(address, prompts[number], tokens)

    wall, cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    answers = [each for each in found if each is not None]
    times = sorted(seconds for _, seconds in answers)
    written = len(answers) * tokens
    return [text for text, _ in answers], {
        "clients": clients, "lost": len(prompts) - len(answers), "tokens/s": written / wall,
        "cpu ms/token": 1000 * cpu / written, "latency p50 s": statistics.median(times),
        "latency p95 s": times[int(0.95 * (len(times) - 1))],
    }  # fmt: skip


def gap(model: Any, prompt: str, one: str, other: str) -> float:
    """By how much the two best scores differ where two answers part."""
    import torch

    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    with torch.inference_mode():
        logits = model.network(torch.tensor([model.prompting(prompt + one[:same])])).logits[0, -1]
    best = logits.topk(2).values
    return float(best[0] - best[1])


def run(options: argparse.Namespace) -> int:
    """Serves, asks, compares; 1 where an answer is lost or wrong."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from lit_transformer.serving import Limits
    from lit_transformer.serving.server import Place, serving

    model = model_of(options)
    draw = random.Random(options.seed)
    lengths = [draw.randint(max(1, options.prompt // 4), options.prompt) for _ in range(options.requests)]
    prompts = ["".join(draw.choice(string.ascii_letters + " ") for _ in range(length)) for length in lengths]
    limits = Limits(options.slots, options.clients, options.context, options.new_tokens, seconds=3600)
    expected = [model.generate(prompt, temperature=0, max_new_tokens=options.new_tokens) for prompt in prompts]
    wrong = ties = 0
    with serving(model, "benchmark", limits, Place(port=0)) as address:
        for clients in (1, options.clients):
            answers, said = asked_by(clients, address, prompts, options.new_tokens)
            for prompt, one, other in zip(prompts, expected, answers, strict=True):
                if one != other:
                    tie = gap(model, prompt, one, other) < options.tie
                    ties, wrong = ties + tie, wrong + (not tie)
            print(json.dumps({name: round(value, 3) for name, value in said.items()}), flush=True)
    print(json.dumps({"answers": 2 * len(prompts), "unequal": wrong, "parted at a tie": ties}))
    return int(wrong > 0)
