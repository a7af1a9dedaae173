"""Fitting how loss falls with parameters and tokens (Hoffmann et al., 2022, arXiv:2203.15556, approach 3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Run = tuple[float, float, float]
"""Parameters, tokens, loss."""


@dataclass(frozen=True)
class PowerLawFit:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Args:
        floor: E, the loss that no size reaches below.
        a: A.
        alpha: Exponent of the parameters.
        b: B.
        beta: Exponent of the tokens.
    """

    floor: float
    a: float
    alpha: float
    b: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        """The loss."""
        return float(self.floor + self.a / parameters**self.alpha + self.b / tokens**self.beta)

    def best(self, compute: float) -> tuple[float, float]:
        """Parameters and tokens with the least loss among those with 6 N D = compute."""
        ratio = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (compute / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, compute / 6 / parameters


def fit_power_law(runs: Sequence[Run]) -> PowerLawFit:
    """Least squares of the logarithms of losses, robust (Huber), from several starts.

    Args:
        runs: At least five, of at least two sizes and two numbers of tokens.

    Raises:
        ValueError: Too few.
    """
    from scipy.optimize import least_squares

    if len(runs) < 5 or len({n for n, _, _ in runs}) < 2 or len({d for _, d, _ in runs}) < 2:
        raise ValueError("a power law in two variables wants at least 5 runs, 2 sizes and 2 numbers of tokens")
    parameters, tokens, losses = (np.array(values, dtype=float) for values in zip(*runs, strict=True))
    log_n, log_d, log_l = np.log(parameters), np.log(tokens), np.log(losses)

    def apart(x: np.ndarray) -> np.ndarray:
        floor, a, alpha, b, beta = x
        return np.asarray(np.log(np.exp(floor) + np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)) - log_l)

    low, high = math.log(float(losses.min())), float(log_n.mean())
    starts = [
        (low + math.log(share), alpha * high, alpha, beta * float(log_d.mean()), beta)
        for share in (0.3, 0.8) for alpha in (0.2, 0.5) for beta in (0.2, 0.5)
    ]  # fmt: skip
    bounds = ([-10, -50, 0.01, -50, 0.01], [10, 50, 2, 50, 2])
    fits = [least_squares(apart, start, bounds=bounds, loss="huber", f_scale=1e-2) for start in starts]
    floor, a, alpha, b, beta = min(fits, key=lambda fit: float(fit.cost)).x
    return PowerLawFit(math.exp(floor), math.exp(a), float(alpha), math.exp(b), float(beta))


def resampled_fits(groups: Sequence[Sequence[Run]], count: int = 50, seed: int = 0) -> list[PowerLawFit]:
    """Fits of groups (the seeds of a size and a number of tokens), each drawn again with replacement: the uncertainty.

    Args:
        groups: The runs of each group.
        count: Number of fits.
        seed: Of the drawing.
    """
    draw = np.random.RandomState(seed)
    result = []
    for _ in range(count):
        runs = [group[i] for group in groups for i in draw.randint(0, len(group), len(group))]
        result.append(fit_power_law(runs))
    return result
