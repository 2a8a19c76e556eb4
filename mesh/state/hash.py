"""A hash of the whole replicated state that costs only what changed.

The state hash is the sum, modulo 2**256, of the hashes of all rows: adding and
taking away a row are one addition each, and the order of rows does not matter.
Rows are encoded by `encode`, which leaves out fields that are at their default,
so that hosts of two versions agree as long as a new field is not used.

Source: M. Bellare, D. Micciancio, "A New Paradigm for Collision-Free Hashing"
(AdHash). It finds divergence; it is no proof against an attacker.
"""

from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from mesh.state.tables import ClusterState

HASH_BYTES = 32
_Plan: TypeAlias = tuple[bytes, tuple[tuple[str, bytes, object], ...]]
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
        kind, rows = table.kind, table.rows
        for key, old in table.dirty.items():
            new = rows.get(key)
            if old is new:
                continue
            if old is not None:
                total -= row_hash(kind, key, old)
            if new is not None:
                total += row_hash(kind, key, new)
        table.dirty.clear()
    state.row_sum = total & _MODULUS_MASK
    state.ledger.dirty_count = 0


def row_hash(kind: str, key: object, value: object) -> int:
    """One row's part of the sum."""
    parts: list[bytes] = []
    _add(kind, parts)
    _add(key, parts)
    _add(value, parts)
    return int.from_bytes(blake2b(b"".join(parts), digest_size=HASH_BYTES).digest(), "big")


def encode(value: object) -> bytes:
    """Canonical bytes of a value: equal values give equal bytes, different ones different."""
    parts: list[bytes] = []
    _add(value, parts)
    return b"".join(parts)


def _add(value: Any, parts: list[bytes]) -> None:
    kind = type(value)
    if kind is str:
        raw = value.encode()
        parts += (b"s%d:" % len(raw), raw)
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
            _add(each, parts)
        parts.append(b")")
    elif isinstance(value, Enum):
        parts.append(b"e")
        _add(value.value, parts)
    else:
        name, plan = _plan(kind)
        parts.append(name)
        for attribute, label, default in plan:
            field_value = getattr(value, attribute)
            if field_value != default:
                parts.append(label)
                _add(field_value, parts)
        parts.append(b"}")


def _plan(kind: type) -> _Plan:
    """Name and, for each field, attribute, label and default of a dataclass."""
    known = _plans.get(kind)
    if known is None:
        known = _plans[kind] = _make_plan(kind)
    return known


def _make_plan(kind: type) -> _Plan:
    if not is_dataclass(kind):
        raise TypeError(f"a row of the replicated state cannot hold a {kind.__name__}")
    plan = []
    for each in fields(kind):
        default: object = MISSING
        if each.default is not MISSING:
            default = each.default
        elif each.default_factory is not MISSING:
            default = each.default_factory()
        plan.append((each.name, f"{each.name}=".encode(), default))
    return f"{{{kind.__name__}:".encode(), tuple(plan)
