"""Checkpoint files: written whole or not at all, verified, found again, and opened without running code.

::

    write(path, payload, step)         verify(path)        read(path)         sweep(folder)
    find_newest(run_folder)            resolve(path)       load_network(path) export_safetensors(path, target)
"""

from lit_transformer.checkpoints.finding import Found, candidates, find_newest, resolve
from lit_transformer.checkpoints.footer import Footer
from lit_transformer.checkpoints.parts import check_parts, steps_of
from lit_transformer.checkpoints.reading import read, read_footer, verify
from lit_transformer.checkpoints.writing import sweep, write

__all__ = [
    "Footer", "Found", "Loaded", "candidates", "check_parts", "check_tokenizer", "export_safetensors", "find_newest",
    "load_network", "read", "read_footer", "resolve", "steps_of", "sweep", "verify", "write",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # these need torch; finding and verifying answer without it
    if name in ("Loaded", "check_tokenizer", "load_network"):
        from lit_transformer.checkpoints import loading

        return getattr(loading, name)
    if name == "export_safetensors":
        from lit_transformer.checkpoints.exporting import export_safetensors

        return export_safetensors
    raise AttributeError(name)
