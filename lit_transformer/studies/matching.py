"""Whether arms that are compared have as many parameters, tokens and FLOPs."""

from lit_transformer.errors import UserError
from lit_transformer.studies.cells import Cell, Plan
from lit_transformer.studies.program import Facts


def baseline_of(plan: Plan, cell: Cell) -> Cell | None:
    """The cell of the baseline under the same setting, or the first arm's; None: nothing to compare."""
    same = [each for each in plan.groups if each.setting == cell.setting]
    wanted = plan.study.baseline or next(iter(plan.study.arms))
    return next((each for each in same if each.arm == wanted), same[0] if same else None)


def apart(plan: Plan, cell: Cell, facts: dict[str, Facts], name: str) -> float:
    """How far a cell is from its baseline in this respect, as a share."""
    base = baseline_of(plan, cell)
    if base is None:
        return 0.0
    mine, other = getattr(facts[cell.group], name), getattr(facts[base.group], name)
    return mine / other - 1 if other else 0.0


def check_match(plan: Plan, facts: dict[str, Facts]) -> None:
    """Refuses arms that are not alike enough to be compared.

    Raises:
        UserError: The first pair, with its numbers.
    """
    match = plan.study.match
    for cell in plan.groups:
        for name, most in match.most.items():
            if cell.arm in match.apart.get(name, []):
                continue
            share = apart(plan, cell, facts, name)
            if most is not None and abs(share) > most + 1e-12:
                base = baseline_of(plan, cell)
                assert base is not None
                raise UserError(
                    f"study {plan.study.name}: {cell.group} has {getattr(facts[cell.group], name):,.0f} {name}, "
                    f"{base.group} {getattr(facts[base.group], name):,.0f}: {share:+.1%}, and study.match.{name} "
                    f"allows {most:.1%}; make them alike, or write study.match.{name}: null to only print it"
                )


def table(plan: Plan, facts: dict[str, Facts]) -> str:
    """The groups of cells with what is matched, and how far each is from its baseline."""
    width = max(len(cell.group) for cell in plan.groups)
    columns = [("parameters", 16, ",.0f"), ("tokens", 16, ",.0f"), ("flops", 16, ",.3g")]
    if any(each.targets for each in facts.values()):
        columns.append(("targets", 16, ",.0f"))
    lines = [f"{'cell':<{width}}" + "".join(f"{name:>{size}}        " for name, size, _ in columns)]
    for cell in plan.groups:
        line = f"{cell.group:<{width}}"
        for name, size, style in columns:
            share = apart(plan, cell, facts, name)
            line += f"{getattr(facts[cell.group], name):>{size}{style}} {f'{share:+.1%}' if share else '':>7}"
        lines.append(line.rstrip())
    seeds = plan.study.seeds
    lines.append(f"{len(plan.groups)} x {len(seeds)} seeds ({', '.join(map(str, seeds))}): {len(plan.cells)} cells"
                 + (f"; {plan.dropped} more are left out of the grid" if plan.dropped else ""))  # fmt: skip
    return "\n".join(lines)
