"""One checkpoint out of several: the mean of their weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_transformer.checkpoints.converting import read_any, write_any
from lit_transformer.checkpoints.finding import candidates
from lit_transformer.checkpoints.loading import Weights, network_weights
from lit_transformer.checkpoints.parts import EMA
from lit_transformer.checkpoints.reading import read, read_footer
from lit_transformer.checkpoints.writing import write
from lit_transformer.errors import UserError

KEPT = ("global_step", "epoch", "pytorch-lightning_version", "hyper_parameters", "vocabulary", "tokenizer",
        "tokenizer_sha256")  # fmt: skip
"""What it takes to use the weights: not the state of a run, which an average has none of."""


def average_checkpoints(
    paths: Sequence[str | Path], target: str | Path, weights: Weights = "raw", trusted: bool = False
) -> Path:
    """Writes the mean of the weights of checkpoints of one network, usually the last or the best of a run (Vaswani et
    al., 2017, averaged the last 5 or 20).

    Sums are taken in float64. The result serves for evaluation, decoding, ``--init_from`` and export; it has no run to
    go on with.

    Args:
        paths: At least two checkpoints: plain or safetensors files, or folders of parts.
        target: The file to write, replaced in one step; ``.safetensors`` is one.
        weights: ``raw`` the trained weights of each, ``ema`` their running averages, ``auto`` those where there are.
        trusted: Whether DeepSpeed's pickles may be opened.

    Returns:
        The file that was written.

    Raises:
        UserError: Fewer than two files, or files of unlike networks or tokenizers.
    """
    files = [Path(path) for path in paths]
    if len(files) < 2:
        raise UserError(f"checkpoint average: needs at least two checkpoints, got {len(files)}")
    sums: dict[str, Tensor] = {}
    newest: dict[str, Any] = {}
    first: dict[str, Any] = {}
    steps = []
    for path in files:
        checkpoint = read_any(path, trusted)
        values = {**_others(checkpoint, weights), **_named(network_weights(path, checkpoint, weights))}
        first = first or checkpoint
        _check_alike(files[0], path, first, checkpoint, sums, values)
        for name, value in values.items():
            part = value.double() if value.is_floating_point() else value
            if name not in sums:
                sums[name] = part.clone()
            elif value.is_floating_point():
                sums[name] += part
        steps.append(int(checkpoint["global_step"]))
        if checkpoint["global_step"] == max(steps):
            newest = checkpoint
    like: Mapping[str, Tensor] = newest["state_dict"]
    mean = {
        name: (total / len(files)).to(like[name].dtype) if total.is_floating_point() else like[name]
        for name, total in sums.items()
    }
    content = {key: newest[key] for key in KEPT if key in newest}
    content["state_dict"] = _retied(mean, like)
    content["averaged"] = {"steps": sorted(steps), "weights": weights}
    if Path(target).suffix == ".safetensors":
        write_any(Path(target), content.pop("state_dict"), content)
    else:
        write(target, content, step=int(newest["global_step"]))
    return Path(target)


def _named(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": value for name, value in values.items()}


def _others(checkpoint: Mapping[str, Any], weights: Weights) -> dict[str, Tensor]:
    """The task's own weights, such as a classifier's head."""
    average = checkpoint.get(EMA) if weights != "raw" else None
    state = {**checkpoint["state_dict"], **(average["weights"] if isinstance(average, Mapping) else {})}
    return {name: value for name, value in state.items() if not name.startswith("network.")}


def _retied(mean: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that were one are one again: their mean is the same, and is stored once."""
    first: dict[tuple[int, int], str] = {}
    for name, value in like.items():
        place = (value.untyped_storage().data_ptr(), int(value.storage_offset()))
        if value.numel() and name in mean:
            mean[name] = mean[first.setdefault(place, name)]
    return mean


def _check_alike(
    one: Path,
    other: Path,
    first: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    sums: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
) -> None:
    if checkpoint.get("tokenizer_sha256") != first.get("tokenizer_sha256"):
        raise UserError(f"{other}: was trained with another tokenizer than {one}; average checkpoints of one run")
    for name in sorted(sums.keys() | values.keys()) if sums else ():
        if name not in sums or name not in values:
            lacking = one if name not in sums else other
            raise UserError(f"{lacking}: has no weight {name}, the others have; average checkpoints of one network")
        if sums[name].shape != values[name].shape:
            raise UserError(f"{other}: {name} has another shape than in {one}; average checkpoints of one network")


def checkpoints_of_run(folder: str | Path, last: int | None = None, best: int | None = None) -> list[Path]:
    """The checkpoints of a run to average, one a step.

    Args:
        folder: A run folder.
        last: This many of the most optimizer steps.
        best: This many of the best validations, as ``KeptCheckpoints`` noted them.

    Raises:
        UserError: The run keeps fewer.
    """
    by_step: dict[int, Path] = {}
    for file in candidates(folder):
        by_step.setdefault(read_footer(file).step, file)
    wanted = last if best is None else best
    assert wanted is not None, "one of the two is given"
    steps = sorted(by_step, reverse=True)
    if best is not None:
        scores, lower = _scores(by_step[steps[0]]) if steps else ({}, True)
        steps = sorted((step for step in steps if step in scores), key=lambda step: scores[step], reverse=not lower)
    if len(steps) < wanted or wanted < 2:
        kind = "last" if best is None else "best"
        raise UserError(
            f"{folder}: --{kind} {wanted}: the run keeps {len(steps)} checkpoint{'s' * (len(steps) != 1)} to average "
            "(at least 2 are needed); train with the callback {class_path: KeptCheckpoints, last: 5}"
        )
    return [by_step[step] for step in steps[:wanted]]


def _scores(path: Path) -> tuple[dict[int, float], bool]:
    """What each validation gave, by step, and whether less is better."""
    for state in read(path).get("callbacks", {}).values():
        if isinstance(state, dict) and isinstance(state.get("scores"), dict):
            return {int(step): float(score) for step, score in state["scores"].items()}, state.get("mode") == "min"
    return {}, True
