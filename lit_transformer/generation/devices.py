"""Where to decode."""

import torch

from lit_transformer.errors import UserError


def device_of(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is an accelerator where there is one.

    Raises:
        UserError: No such device, or none of that kind in this machine.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present.insert(0, "cuda")
    if name == "auto":
        return torch.device(present[0])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    count = torch.cuda.device_count()
    if device is None or device.type not in present or (device.type == "cuda" and (device.index or 0) >= count):
        numbered = [f"cuda:{i}" for i in range(count)] if count > 1 else []
        raise UserError(f"device: {name!r} is not in this machine; there is: {', '.join(present + numbered)}")
    return device
