"""Every recipe, killed and resumed."""

import sys
from pathlib import Path
from typing import Any

from soaks.table import Rows, command


@command
def resume(folder: Path, scale: float) -> Rows:
    """verify-resume on every shipped recipe that its data allow, shrunk; with dropout, accumulation, EMA, workers."""
    from lit_transformer.cli.verify_resume import verify_resume
    from lit_transformer.errors import LitTransformerError
    from lit_transformer.recipe import shipped_recipes

    tiny = ["--config", "overlays/tiny"]
    more = ["--trainer.callbacks+", "{class_path: EMA, decay: 0.9}"]
    cases = {
        "": [],
        "accumulation 2, EMA": ["--trainer.accumulate_grad_batches", "2", *more],
        "workers 2, EMA": ["--data.num_workers", "2", *more],
    }
    rows: Rows = []
    for recipe in shipped_recipes():
        if recipe.is_overlay:
            continue
        for name, extra in list(cases.items())[: None if scale >= 1 else 1]:
            try:
                report = verify_resume(["--config", recipe.name, *tiny, *extra])
                result: Any = report.same
                if not report.same:
                    print(report, file=sys.stderr)
            except LitTransformerError as error:
                result = str(error)[:90]
            rows.append((f"{recipe.name} {name}".strip(), result, True))
    return rows
