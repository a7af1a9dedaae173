"""``lit-transformer mask``: draw who may look at whom."""

import shutil
import sys
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.blocks.masks import Mask


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "mask",
        "Draw the pattern of a mask, with its density and the FLOPs it saves: the masks of a recipe's network, or\n"
        "masks said by name, each followed by its own arguments (--window 64) and visible where all of them say so.",
        "lit-transformer mask --mask Causal --mask SlidingWindow --window 64 --length 256",
    )
    add = result.add_argument
    add("--config", action="append", default=[], metavar="RECIPE", help="a recipe; several: overlays, in order")
    add("--mask", action="append", metavar="NAME", help="a mask by name, or its recipe lines as YAML text")
    add("--length", type=int, metavar="N", help="tokens (default: the recipe's block_size or max_len, else 256)")
    add("--documents", metavar="N,N,...", help="lengths of documents packed into the row")
    add("--prefix", type=int, default=0, metavar="N", help="first tokens that everybody may see, for PrefixCausal")
    add("--tile", type=int, metavar="N", help="side of the tiles a kernel can skip (default: 64, less for short rows)")
    add("--width", type=int, metavar="N", help="columns of the drawing (default: the terminal's, at most 64)")
    add("--allow", action="append", default=[], metavar="PACKAGE", help="your package that may be named")
    add("--output", metavar="FILE", help="write the picture there, .png, .svg or .txt; left out: draw it here")
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    masks, argv = _masks_of(argv)
    options = parser().parse_args(argv)
    if bool(masks) == bool(options.config):
        raise UserError("mask: give either --config with a recipe, or --mask with a name")
    documents = _numbers(options.documents)
    from lit_transformer.analysis.mask_picture import FORMATS, draw_mask
    from lit_transformer.recipe import ImportList

    if options.output and not options.output.lower().endswith(FORMATS):
        raise UserError(f"mask: --output {options.output} must end in {', '.join(FORMATS)}")
    ImportList(options.allow).enforce()
    found = [(mask, "", None) for mask in _named(masks)] if masks else _of_recipe(options.config, options.length)
    length = options.length
    if length is None:
        length = found[0][2].length if found[0][2] else 256
    width = options.width or min(64, max(8, shutil.get_terminal_size().columns - 1))
    for number, (mask, where, sizes) in enumerate(found):
        picture = draw_mask(mask, length, documents, options.prefix, options.tile)
        print(f"{where}{picture.title}, {length:,} tokens")
        if options.output:
            path = options.output
            if len(found) > 1:
                stem, dot, kind = path.rpartition(".")
                path = f"{stem}-{number + 1}{dot}{kind}"
            picture.save(path)
        else:
            print(picture.text(width))
        print(picture.summary())
        if sizes:
            print(sizes.flops(picture))
        if options.output:
            print(path)
    sys.stdout.flush()
    return EXIT_DONE


def _masks_of(argv: list[str]) -> tuple[list[tuple[str, dict[str, str]]], list[str]]:
    """Masks with the arguments behind them, and the rest of the command line."""
    own = {option for action in parser()._actions for option in action.option_strings}
    masks: list[tuple[str, dict[str, str]]] = []
    rest: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or (name in own and name != "--mask") or (name != "--mask" and not masks):
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UserError(f"mask: {name} needs a value")
            value = words.pop(0)
        if name == "--mask":
            masks.append((value, {}))
        else:
            masks[-1][1][name[2:]] = value
    return masks, rest


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(word) for word in text.split(",")]
    except ValueError as error:
        raise UserError(f"mask: --documents {text} must be whole numbers with commas between them") from error


def _named(masks: list[tuple[str, dict[str, str]]]) -> "list[Mask]":
    from functools import reduce
    from operator import and_

    from lit_transformer.blocks.masks import Mask
    from lit_transformer.recipe.building import build
    from lit_transformer.recipe.reader import read_value
    from lit_transformer.recipe.tree import plain

    built = []
    for text, arguments in masks:
        config = plain(read_value(text))
        values = {name: plain(read_value(value)) for name, value in arguments.items()}
        if values:
            config = {**(config if isinstance(config, dict) else {"class_path": config}), **values}
        built.append(build(Mask, config, source="--mask"))
    return [reduce(and_, built)]


class _Sizes:
    """What a recipe says beside the mask."""

    def __init__(self, dims: Any, layers: int, length: int) -> None:
        self.dims, self.layers, self.length = dims, layers, length

    def flops(self, picture: Any) -> str:
        """The savings of these layers."""
        spent = self.layers * picture.flops(self.dims.head_size, self.dims.n_heads)
        whole = round(spent / picture.density) if spent else 0
        heads = f"{self.dims.n_heads} heads of {self.dims.head_size}"
        return f"forward      {spent / 1e6:,.1f} of {whole / 1e6:,.1f} MFLOPs a row, {self.layers} layers with {heads}"


def _of_recipe(configs: list[str], length: int | None) -> "list[tuple[Mask, str, _Sizes]]":
    """The masks of a recipe's network: where they are used, and the sizes there."""
    from collections.abc import Callable

    import torch

    from lit_transformer.blocks import Stack
    from lit_transformer.networks import Network
    from lit_transformer.recipe import find_recipe, merge_recipes, read_recipe
    from lit_transformer.recipe.building import build
    from lit_transformer.recipe.tree import plain
    from lit_transformer.vocabulary import Vocabulary

    recipe: dict[str, Any] = plain(merge_recipes([read_recipe(*find_recipe(name)) for name in configs]))
    config = (recipe.get("model") or {}).get("network")
    if config is None:
        raise UserError(f"{configs[0]}: has no model.network, whose masks are to be drawn")
    network_config = config if isinstance(config, dict) else {}
    dims = network_config.get("dims") or {}
    block = (recipe.get("data") or {}).get("block_size")
    length = max(1, length or block or dims.get("max_len") or 256)
    vocabulary = Vocabulary(8, 8, 0, 1, 2, 3, 4, max_len=length)
    with torch.device("meta"):
        network = build(Callable[[Vocabulary], Network], config, source=configs[0])(vocabulary)
    found: list[tuple[Mask, str, _Sizes]] = []
    for path, stack in network.named_modules():
        if not isinstance(stack, Stack):
            continue
        used: dict[Mask, list[int]] = {}
        for i, layer in enumerate(stack.layers):
            used.setdefault(getattr(layer, "own_mask", None) or stack.mask, []).append(i)
        for mask, layers in used.items():
            where = f"{path}: " if len(used) == 1 else f"{path}, layers {', '.join(map(str, layers))}: "
            found.append((mask, where, _Sizes(stack.dims, len(layers), length)))
    if not found:
        raise UserError(f"{configs[0]}: its network has no stack of layers with a mask")
    return found
