"""Real hierarchies that need no download, or that others have: classes of Python, WordNet's nouns.

Each is a `rlkit.data.graphs.Graph` whose edges lead from a node to one above it.
"""

import importlib
import inspect
from pathlib import Path

import numpy as np

from rlkit.data import graphs
from rlkit.errors import DataError

MODULES = (
    "abc", "argparse", "ast", "asyncio", "builtins", "collections", "collections.abc",
    "concurrent.futures", "configparser", "contextlib", "datetime", "decimal", "email.errors",
    "enum", "fractions", "html.parser", "http.client", "http.cookiejar", "http.server",
    "importlib.abc", "importlib.machinery", "io", "json", "logging", "logging.handlers",
    "numbers", "pathlib", "queue", "random", "selectors", "shelve", "socket", "socketserver",
    "string", "subprocess", "tarfile", "tempfile", "threading", "types", "unittest",
    "unittest.mock", "urllib.error", "urllib.request", "warnings", "weakref", "xml.dom",
    "xml.etree.ElementTree", "xml.sax", "xmlrpc.client", "zipfile",
)  # fmt: skip
"""Of the standard library, whose classes are a hierarchy."""


def python_classes() -> graphs.Graph:
    """Classes of the standard library's `MODULES` and what they inherit from, down from `object`.

    A real hierarchy with several parents here and there, which everybody has; other versions of
    Python have somewhat different classes.
    """
    waiting = []
    for module in MODULES:
        waiting += [
            c for _, c in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        ]
    lines, seen = set(), set()
    while waiting:
        child = waiting.pop()
        if child in seen:
            continue
        seen.add(child)
        waiting += child.__bases__
        lines |= {f"{_called(child)} {_called(parent)}" for parent in child.__bases__}
    return graphs.parse("\n".join(sorted(lines)).encode(), where="the classes of Python")


def _called(kind: type) -> str:
    short = kind.__qualname__.replace("<locals>.", "")
    return short if kind.__module__ == "builtins" else f"{kind.__module__}.{short}"


def wordnet(path: Path) -> graphs.Graph:
    """The nouns of a WordNet 3.x by its dictionary file `data.noun`: child and hypernym.

    Instances (of cities, of people) count as children. A synset is called by its first word, with
    the synset's offset behind it where several have that word.

    Raises:
        DataError: the file cannot be read, or a line of it is none of the format's.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    words: dict[str, str] = {}
    edges: list[tuple[str, str, int]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("  "):  # the license
            continue
        try:
            fields = line.split("|")[0].split()
            count = int(fields[3], 16)
            words[fields[0]] = fields[4]
            at = 4 + 2 * count
            pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
            edges += [
                (fields[0], other, number)
                for symbol, other, part, _ in pointers
                if symbol in ("@", "@i") and part == "n"
            ]
        except (ValueError, IndexError):
            raise DataError(f"{path}: line {number} is not a synset of WordNet's format") from None
    for _, parent, number in edges:
        if parent not in words:
            raise DataError(f"{path}: line {number} has the hypernym {parent}, which is no synset")
    if not edges:
        raise DataError(f"{path} holds no hypernym")
    counts: dict[str, int] = {}
    for word in words.values():
        counts[word] = counts.get(word, 0) + 1
    used = dict.fromkeys(node for child, parent, _ in edges for node in (child, parent))
    index = {node: i for i, node in enumerate(used)}
    once = {(index[child], index[parent]): number for child, parent, number in edges}
    return graphs.Graph(
        edges=np.array(list(once), np.int64),
        weights=np.ones(len(once)),
        names=tuple(
            words[node] if counts[words[node]] == 1 else f"{words[node]}.{node}" for node in used
        ),
        where=str(path),
        lines=np.array(list(once.values()), np.int64),
    )
