"""The answer to `maintainer tree`: the layer chains of scopes, each layer shown once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from maintainer.cacheconfig import NO_REF
from maintainer.graph.forest import ScopeTree, TreeLayer
from maintainer.report.words import format_count, format_digest, format_size
from maintainer.sanitize import loggable

_DEEPEST = 8
"""The maximum indentation; deeper layers get a mark instead."""


def render_forest(trees: Sequence[ScopeTree]) -> Group:
    """Draw one tree per scope; layers of earlier scopes are not drawn again."""
    seen: dict[int, str] = {}
    drawn = []
    several = len({tree.target for tree in trees}) > 1
    for tree in trees:
        drawn.append(_draw(tree, seen, f" on {loggable(tree.target)}" if several else ""))
        seen |= {layer.id: tree.scope for layer in tree.layers if layer.id not in seen}
    return Group(*drawn)


def _draw(tree: ScopeTree, seen: dict[int, str], place: str) -> Tree:
    known = {layer.id: layer for layer in tree.layers}
    shown = _with_all_below((one for one in tree.layers if one.id not in seen), known)
    root = Tree(Text(_title(tree, place)))
    above = defaultdict[int | None, list[TreeLayer]](list)
    for layer in tree.layers:
        if layer.id in shown:
            above[layer.parent_id].append(layer)
    waiting = [(root, layer, 0) for layer in reversed(above[None])]
    while waiting:
        branch, layer, depth = waiting.pop()
        run = [layer]
        while len(above[run[-1].id]) == 1:
            run += above[run[-1].id]
        deeper = "⋮ " * (depth > _DEEPEST)
        node = branch.add(Text("\n".join(f"{deeper}{_say(one, seen)}" for one in run)))
        inner = node if depth < _DEEPEST else branch
        waiting += [(inner, one, depth + 1) for one in reversed(above[run[-1].id])]
    left = len(known) - len(shown)
    if left:
        root.add(Text(f"{format_count(left, 'layer')} shown above, in other scopes", style="dim"))
    return root


def _title(tree: ScopeTree, place: str) -> str:
    sizes = {layer.digest: layer.size for layer in tree.layers if layer.is_stored}
    results = sum(layer.results for layer in tree.layers)
    size = format_size(sum(sizes.values()))
    ref = "" if tree.ref == NO_REF else f" in {loggable(tree.ref)}"
    return (
        f"{loggable(tree.scope)}{ref}{place}: {size} in "
        f"{format_count(len(tree.layers), 'layer')}, {format_count(results, 'result')} "
        f"({loggable(tree.key)})"
    )


def _with_all_below(layers: Iterable[TreeLayer], known: dict[int, TreeLayer]) -> set[int]:
    """Return the layers, with all layers below them."""
    shown: set[int] = set()
    for layer in layers:
        below: TreeLayer | None = layer
        while below and below.id not in shown:
            shown.add(below.id)
            below = None if below.parent_id is None else known.get(below.parent_id)
    return shown


def _say(layer: TreeLayer, seen: dict[int, str]) -> str:
    return "  ".join(_columns(layer, seen))


def _columns(layer: TreeLayer, seen: dict[int, str]) -> Iterator[str]:
    yield loggable(format_digest(layer.digest))
    yield f"{format_size(layer.size):>8}"
    if layer.results:
        yield format_count(layer.results, "result")
    if not layer.is_stored:
        yield "gone"
    if layer.id in seen:
        yield f"shown above, in {loggable(seen[layer.id])}"
