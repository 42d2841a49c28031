"""A user's YAML as plain data: mappings with words for keys, lists, strings, numbers, true, false,
null.

PyYAML's safe loader still lets the last of two equal keys win, reads 1e9 as a string, turns dates
into objects, and takes depth and aliases without bound.  Here each of these is one line that says
where.
"""

import copy
import functools
import re
from typing import Any

import yaml

MAX_CHARACTERS, MAX_DEPTH, MAX_NODES, MAX_DIGITS = 1_000_000, 40, 20_000, 100
KEPT = 256  # texts: a forecast of all cards reads the same presets hundreds of times


class YamlError(ValueError):
    """One line: what is wrong and, in a file, at which line and column."""


def read_yaml(text: str) -> Any:
    """Raises YamlError.  What it gives is the caller's to change."""
    return copy.deepcopy(_parsed(text))


@functools.lru_cache(KEPT)
def _parsed(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise YamlError(f"longer than {MAX_CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise YamlError(f"malformed YAML{where}: {' '.join(problem.split())}") from None
    except (OverflowError, ValueError) as error:  # "\UFFFFFFFF" is no character
        raise YamlError(f"malformed YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[
            yaml.Node, int
        ] = {}  # nodes below each, aliases as often as they are used

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        mark = self.peek_event().start_mark
        alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and node not in self._sizes:
            raise _error("an alias within what it stands for", mark)
        self._sizes.setdefault(node, 1 + sum(self._sizes[child] for child in _children(node)))
        if self._sizes[node] > MAX_NODES:
            raise _error(
                f"more than {MAX_NODES:,} values, aliases counted as what they stand for", mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise _error(f"expected a mapping, found a {node.id}", node.start_mark)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (
                _TAG + "str",
                _TAG + "merge",
            ):
                raise _error(f"key {_brief(key)} is not a word", key.start_mark)
            if key.value in seen:
                raise _error(f"key {key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):  # came in by a merge
                raise _error(f"key {key!r} is not a word", node.start_mark)
        return mapping

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        if len(node.value) > MAX_DIGITS:
            raise _error(f"a number of {len(node.value)} characters", node.start_mark)
        whole = node.tag == _TAG + "int"
        try:
            return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        except (ValueError, IndexError):
            raise _error(
                f"{node.value!r} is not {'an integer' if whole else 'a number'}", node.start_mark
            ) from None

    def construct_truth(self, node: yaml.ScalarNode) -> bool:
        try:
            return self.construct_yaml_bool(node)
        except KeyError:
            raise _error(f"{node.value!r} is neither true nor false", node.start_mark) from None


_TAG = "tag:yaml.org,2002:"
# Only what a spec can hold: no dates, sets, binaries.
_Loader.yaml_constructors = {
    _TAG + "null": yaml.SafeLoader.construct_yaml_null,
    _TAG + "bool": _Loader.construct_truth,
    _TAG + "int": _Loader.construct_number,
    _TAG + "float": _Loader.construct_number,
    _TAG + "str": yaml.SafeLoader.construct_yaml_str,
    _TAG + "seq": yaml.SafeLoader.construct_yaml_seq,
    _TAG + "map": yaml.SafeLoader.construct_yaml_map,
    None: yaml.SafeLoader.construct_undefined,
}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in (_TAG + "timestamp", _TAG + "value")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.2's floats, so that 1e9 is one.
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _error(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _brief(node: yaml.Node) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"
