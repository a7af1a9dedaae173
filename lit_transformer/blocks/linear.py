"""The matrix product with weights, and the marker of the ones that write into the residual stream."""

from torch import nn


class Linear(nn.Linear):
    """``x @ W.T + b``; initialised by the network's ``Initialisation``, from the seed and its own name."""

    gain: float | None = None
    """Factor of the weights' start that the residual order asks for; None: the scheme decides alone."""

    def reset_parameters(self) -> None:
        """Nothing: see ``networks.initialisation``; drawing numbers here would be thrown away."""


class ResidualLinear(Linear):
    """A product whose output is added to the residual stream; schemes scale its start by depth."""
