"""Overlays: one recipe after the other, later keys win.

The rules, whatever the types are:

- mappings merge key by key; everything else, lists too, is replaced;
- ``callbacks+:`` appends to the list of the recipe below;
- naming another class starts afresh: the old class's arguments are gone. Naming the same class keeps them;
- ``init_args:`` may be skipped and dotted keys (``network.position: ALiBi``) stand for nested ones.
"""

from collections.abc import Iterable

from lit_transformer.recipe.errors import quote
from lit_transformer.recipe.tree import Mapping, Mark, Node, Scalar, Sequence


def merge_recipes(recipes: Iterable[Mapping]) -> Mapping:
    """Recipe and overlays as one tree, in the order given."""
    result: Mapping | None = None
    for recipe in recipes:
        flat = normalised(recipe)
        if result is None:
            result = Mapping(recipe.mark)
        _merge(result, flat)
    assert result is not None, "at least one recipe"
    return result


def normalised(node: Mapping, path: str = "") -> Mapping:
    """The mapping with dotted keys opened up and ``init_args`` lifted to the level of its class.

    Raises:
        RecipeError: A key that is said twice by these rules.
    """
    result = Mapping(node.mark)
    for key, value in node.items.items():
        mark = node.marks[key]
        here = f"{path}.{key}" if path else key
        if key == "init_args" and isinstance(value, Mapping):
            lifted = normalised(value, path)
            for name, child in lifted.items.items():
                _put(result, name, child, lifted.marks[name], path)
            continue
        if key == "init_args" and isinstance(value, Scalar) and value.value is None:
            continue
        parts = key.split(".")
        head, *rest = [part for part in parts if part != "init_args" or len(parts) == 1] or [""]
        if not all([head, *rest]):
            raise mark.error(f"{quote(key)} is not a key: there is nothing before or after a dot", path)
        child = _normalised_child(value, here)
        for name in reversed(rest):
            parent = Mapping(mark)
            parent.put(name, child, mark)
            child = parent
        _put(result, head, child, mark, path)
    return result


def _normalised_child(value: Node, path: str) -> Node:
    if isinstance(value, Mapping):
        return normalised(value, path)
    if isinstance(value, Sequence):
        return Sequence(value.mark, [_normalised_child(v, f"{path}[{i}]") for i, v in enumerate(value.items)])
    return value


def _put(target: Mapping, key: str, value: Node, mark: Mark, path: str) -> None:
    if key in target.items:
        old = target.items[key]
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            for name, child in value.items.items():
                _put(old, name, child, value.marks[name], f"{path}.{key}" if path else key)
            return
        first = target.marks[key].line
        raise mark.error(f"is given twice, first on line {first}; remove one", f"{path}.{key}" if path else key)
    target.put(key, value, mark)


def _merge(base: Mapping, over: Mapping) -> None:
    """Merges ``over`` into ``base``, in place."""
    for key, value in over.items.items():
        mark = over.marks[key]
        if key.endswith("+") and len(key) > 1:
            base.put(key[:-1], _appended(base.items.get(key[:-1]), value), mark)
        else:
            below = base.items.get(key)
            result = merged(below, value)
            # What was only added to keeps its place; what was replaced stands where it was replaced.
            base.put(key, result, base.marks[key] if result is below else mark)


def merged(base: Node | None, over: Node) -> Node:
    """One value over another."""
    if not isinstance(over, Mapping):
        same = isinstance(base, Mapping) and isinstance(over, Scalar) and _same_class(_class_of(base), over.value)
        return base if same and base is not None else over
    named = over.items.get("class_path")
    if isinstance(base, Mapping) and (
        named is None or (isinstance(named, Scalar) and _same_class(_class_of(base), named.value))
    ):
        _merge(base, over)
        return base
    fresh = Mapping(over.mark)
    if named is None and isinstance(base, Scalar) and isinstance(base.value, str):
        # 'position: RoPE' below and 'position: {base: 1e6}' above: the arguments of that class.
        fresh.put("class_path", base, base.mark)
    if isinstance(base, Scalar) and named is not None and _same_class(base.value, getattr(named, "value", None)):
        base = None
    _merge(fresh, over)
    return fresh


def _appended(base: Node | None, extra: Node) -> Node:
    items: list[Node] = []
    if isinstance(base, Sequence):
        items = list(base.items)
    elif base is not None and not (isinstance(base, Scalar) and (base.value is None or isinstance(base.value, bool))):
        items = [base]
    return Sequence(extra.mark, items + (extra.items if isinstance(extra, Sequence) else [extra]))


def _class_of(node: Node | None) -> object:
    named = node.items.get("class_path") if isinstance(node, Mapping) else None
    return named.value if isinstance(named, Scalar) else None


def _same_class(a: object, b: object) -> bool:
    """Whether two names mean the same class as far as names can tell: equal, or one the last part of the other."""
    if not isinstance(a, str) or not isinstance(b, str):
        return False
    return a == b or (a.rpartition(".")[2] == b.rpartition(".")[2] and ("." not in a or "." not in b))
