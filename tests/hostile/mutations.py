"""Damage to files: of their bytes, and of the values that they hold. The same seed does the same damage."""

import copy
import math
from typing import Any

import numpy as np

TOKENS = (
    b"\x00",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b":",
    b"[" * 100_000,
    b"{" * 5_000,
    b"- " * 5_000,
    b"&a [*a]",
    b"*a",
    b"!!python/object/apply:os.system [true]",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"9" * 5_000,
    b"0x" + b"f" * 5_000,
    "\u2028\x1b[2J\U0001f600".encode(),
)


def bomb() -> list[Any]:
    """A list of a few entries that would be 10^30 written out."""
    value: list[Any] = []
    for _ in range(30):
        value = [value] * 10
    return value


def junk() -> list[Any]:
    """What may stand where something else should; plain values, as YAML and JSON have them."""
    return [
        None,
        True,
        0,
        -1,
        2,
        1.5,
        10**12,
        10**30,
        10**400,
        1e308,
        -1e-308,
        math.nan,
        math.inf,
        "",
        "x",
        "1",
        "../../../../etc/passwd",
        "\x00",
        "a\nb: c",
        "\x1b[31m<script>alert(1)</script>",
        "9" * 10_000,
        [],
        [1, "a", None],
        [[[[[[1]]]]]],
        {},
        {"a": {"b": []}},
        {"choice": [1, 2]},
    ]


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flip, repeat, swap or insert something, once to three times."""
    for _ in range(int(rng.integers(1, 4))):
        size = len(content)
        start, end = sorted(int(place) for place in rng.integers(0, size + 1, 2))
        end = min(end, start + int(rng.choice([1, 8, 100, 10_000])))
        kind = rng.integers(6)
        if kind == 0:
            content = content[:start]
        elif kind == 1 and size:
            flipped = bytearray(content)
            for place in rng.integers(0, size, int(rng.choice([1, 10]))):
                flipped[place] ^= 1 << int(rng.integers(8))
            content = bytes(flipped)
        elif kind == 2:
            content = content[:start] + content[end:]
        elif kind == 3:
            content = content[:end] + content[start:]
        elif kind == 4:
            content = content[:start] + TOKENS[int(rng.integers(len(TOKENS)))] + content[start:]
        else:
            content = content[:start] + rng.bytes(end - start) + content[end:]
    return content


def damage_value(value: Any, rng: np.random.Generator) -> Any:
    """Put something else into one to three places of nested lists and mappings, take it away, or add to it."""
    root = [copy.deepcopy(value)]
    for _ in range(int(rng.integers(1, 4))):
        places = _places(root)
        node, key = places[int(rng.integers(len(places)))]
        thing = junk()[int(rng.integers(len(junk())))]
        kind = rng.integers(8)
        if kind == 0 and node is not root:
            del node[key]
        elif kind == 1 and isinstance(node, dict):
            node[str(rng.choice(["x", "schema", "trial_id", "<b>"]))] = thing
        elif kind == 2 and isinstance(node, list) and node is not root:
            node.insert(key, thing)
        elif kind == 3:
            other, place = places[int(rng.integers(len(places)))]
            node[key] = copy.deepcopy(other[place])
        else:
            node[key] = thing
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """Every (list or mapping, index or key)."""
    found: list[tuple[Any, Any]] = []
    pending: list[Any] = [root]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], dict | list):
                pending.append(node[key])
    return found
