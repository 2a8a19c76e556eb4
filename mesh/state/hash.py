"""A hash of the whole replicated state that costs only what changed.

The state hash is the sum, modulo 2**256, of the hashes of all rows: adding and
taking away a row are one addition each, and the order of rows does not matter.
Rows are encoded by `encode`, which leaves out fields that are at their default,
so that hosts of two versions agree as long as a new field is not used.

Source: M. Bellare, D. Micciancio, "A New Paradigm for Collision-Free Hashing"
(AdHash). It finds divergence; it is no proof against an attacker.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from mesh.state.tables import ClusterState

HASH_BYTES = 32
_Plan: TypeAlias = tuple[bytes, Callable[[Any], tuple[Any, ...]], tuple[bytes, ...], tuple[object, ...]]
#: Bound: one for each dataclass that can be in a row.
_plans: dict[type, _Plan] = {}
_MODULUS_MASK = (1 << 8 * HASH_BYTES) - 1


def checkpoint(state: "ClusterState") -> bytes:
    """The state hash as of the last applied entry, 32 bytes.

    Asked for at indexes that are multiples of `limits.STATE_HASH_PERIOD`; every
    host that applied the same entries gets the same bytes, also after it was
    restored from a snapshot.
    """
    fold(state)
    return state.row_sum.to_bytes(HASH_BYTES, "big")


def fold(state: "ClusterState") -> None:
    """Counts every changed row into the sum, and forgets that it changed."""
    total = state.row_sum
    for table in state.tables:
        if not table.dirty:
            continue
        kind, rows, counted = table.kind, table.rows, table.counted
        for key, old in table.dirty.items():
            new = rows.get(key)
            if old is new:
                continue
            total -= counted.pop(key, 0)
            if new is not None:
                counted[key] = part = row_hash(kind, key, new)
                total += part
        table.dirty.clear()
    state.row_sum = total & _MODULUS_MASK
    state.ledger.dirty_count = 0


def row_hash(kind: str, key: object, value: object) -> int:
    """One row's part of the sum."""
    parts = [_encoded_kind(kind)]
    _add(key, parts)
    _add(value, parts)
    return int.from_bytes(blake2b(b"".join(parts), digest_size=HASH_BYTES).digest(), "big")


@lru_cache(maxsize=64)
def _encoded_kind(kind: str) -> bytes:
    return encode(kind)


def encode(value: object) -> bytes:
    """Canonical bytes of a value: equal values give equal bytes, different ones different."""
    parts: list[bytes] = []
    _add(value, parts)
    return b"".join(parts)


def _add(value: Any, parts: list[bytes]) -> None:
    kind = type(value)
    if kind is str:
        raw = value.encode()
        parts.append(b"s%d:%b" % (len(raw), raw))
    elif kind is int:
        parts.append(b"i%d;" % value)
    elif kind is bytes:
        parts += (b"b%d:" % len(value), value)
    elif value is None:
        parts.append(b"n")
    elif kind is bool:
        parts.append(b"t" if value else b"f")
    elif kind is tuple:
        parts.append(b"(")
        for each in value:
            if type(each) is str:  # what most are: one call less for each
                raw = each.encode()
                parts.append(b"s%d:%b" % (len(raw), raw))
            else:
                _add(each, parts)
        parts.append(b")")
    elif isinstance(value, Enum):
        parts.append(b"e")
        _add(value.value, parts)
    else:
        _add_row(value, _plans.get(kind) or _make_plan(kind), parts)


def _add_row(value: Any, plan: _Plan, parts: list[bytes]) -> None:
    """A dataclass: its name, then label and value of each field that is not at its default.

    Text and numbers, which most fields are, are written here: one call less for each.
    """
    name, take, labels, defaults = plan
    parts.append(name)
    for each, label, default in zip(take(value), labels, defaults, strict=True):
        if each != default:
            kind = type(each)
            if kind is str:
                raw = each.encode()
                parts.append(b"%bs%d:%b" % (label, len(raw), raw))
            elif kind is int:
                parts.append(b"%bi%d;" % (label, each))
            else:
                parts.append(label)
                _add(each, parts)
    parts.append(b"}")


def _make_plan(kind: type) -> _Plan:
    """Name, field values, labels and defaults of a dataclass."""
    if not is_dataclass(kind):
        raise TypeError(f"a row of the replicated state cannot hold a {kind.__name__}")
    names = [each.name for each in fields(kind)]
    take: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    if len(names) == 1:
        take = _only(attrgetter(names[0]))
    plan = (
        f"{{{kind.__name__}:".encode(),
        take,
        tuple(f"{name}=".encode() for name in names),
        tuple(_default(each) for each in fields(kind)),
    )
    _plans[kind] = plan
    return plan


def _only(get: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: (get(value),)


def _default(each: Field[Any]) -> object:
    """A field's default; MISSING, which equals nothing, when it has none."""
    if each.default_factory is not MISSING:
        return each.default_factory()
    return each.default
