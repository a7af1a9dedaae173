"""What goes with what: positions, masks, kernels, types and architectures tried; ``scripts/support.py`` writes it down.

A pair either computes what the eager kernel computes in float64, or is refused when the network is built.
"""

import functools
import inspect
import json
from pathlib import Path

import pytest
import torch
from discovery import DIMS, KERNELS, MASKS, POSITIONS, causal, close, randomised, subclasses

from lit_transformer.blocks import EagerKernel, Mask, SdpaKernel, Stack
from lit_transformer.dims import SizeError
from lit_transformer.networks import Network
from lit_transformer.vocabulary import Vocabulary

DTYPES = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 0.1}
NETWORKS = {cls.__name__: cls for cls in subclasses(Network, Network.__module__.rpartition(".")[0])}
VOCABULARY = Vocabulary(11, 11, 0, 1, 2, 3, 4, max_len=64)
LENGTH = 10


def built(position, mask, kernel) -> Stack:
    return randomised(Stack(DIMS, position=position, mask=mask, kernel=kernel).double(), std=0.2).eval()


@functools.cache
def specification(position: str, mask: str) -> list[torch.Tensor]:
    return outcome(built(POSITIONS[position], MASKS[mask], EagerKernel()), torch.float64)


@pytest.fixture
def masks(request) -> dict[str, Mask]:
    """All of them where the page is written, else some, to be quick."""
    everything = getattr(request.config, "whole_matrix", False)
    return MASKS if everything else {name: MASKS[name] for name in ("And", "Full")}


def outcome(stack: Stack, dtype: torch.dtype) -> list[torch.Tensor]:
    x = torch.randn(1, LENGTH, DIMS.d_model, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x.to(dtype).requires_grad_()
    y = stack.to(dtype)(x)[0]
    y.square().sum().backward()
    assert y.dtype == dtype
    return [y.detach().double(), x.grad.double()]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("position", POSITIONS)
def test_kernel(kernel, position, masks, record_property):
    verdicts = {}
    for name, mask in masks.items():
        expected = specification(position, name)
        types = DTYPES if name in ("And", "BigBird") else ["float32"]
        for dtype in types:
            try:
                candidate = built(POSITIONS[position], mask, KERNELS[kernel]())
                found = outcome(candidate, getattr(torch, dtype))
            except SizeError as error:
                verdicts.setdefault(name, str(error))
                continue
            for a, b in zip(found, expected, strict=True):
                close(a, b, DTYPES[dtype])
            verdicts[name] = "yes"
    record_property("support", json.dumps(["kernel", kernel, position, verdicts]))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("position", POSITIONS)
def test_architecture(network, position, masks, record_property):
    verdicts = {}
    kernel = EagerKernel if POSITIONS[position](DIMS).has_values else SdpaKernel
    for name, mask in masks.items():
        for form, used in (("yes", mask), ("with Causal", causal(mask))):
            try:
                model = NETWORKS[network](VOCABULARY, DIMS, position=POSITIONS[position], mask=used, kernel=kernel())
            except SizeError as error:
                verdicts[name] = str(error)
                continue
            output = run(randomised(model, std=0.2))
            assert output.logits.isfinite().all()
            output.logits.logsumexp(-1).mean().backward()
            assert all(each.grad is None or each.grad.isfinite().all() for each in model.parameters())
            verdicts[name] = form
            break
    record_property("support", json.dumps(["architecture", network, position, verdicts]))


def run(model: Network):
    """A forward pass with tokens for whatever the architecture asks."""
    parameters = inspect.signature(model.forward).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty or each.name == "source"]
    return model(**{name: torch.randint(5, 11, (2, LENGTH)) for name in required})


def test_the_page_is_of_today():
    page = Path(__file__).parents[2] / "recipes" / "SUPPORT.md"
    if not page.exists():
        pytest.skip("not shipped with this copy")
    text = page.read_text(encoding="utf-8")
    missing = [name for name in (*POSITIONS, *MASKS, *KERNELS, *NETWORKS) if name not in text]
    assert not missing, f"run scripts/support.py: {', '.join(missing)} are not in recipes/SUPPORT.md"
