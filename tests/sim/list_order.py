"""Whether lists of several documents saw them as of one moment each.

Looked at alone, each document may have an order, while two lists saw two writes in
opposite orders, or one list saw a later write without an earlier one. So here everything
that is known to come before something else becomes an edge: versions of a document in
their order, what was seen of a version between its write and the next, and the end of an
operation before the beginning of another. A cycle cannot be put into an order.

Proves: sound, never a false alarm. Complete while every version's write is known and no
absence could mean two things (never written, or deleted again): these give no edges.
Bound: linear in operations and rows.
"""

from collections.abc import Mapping, Sequence

from tests.sim.history import ABSENT, Kind, Operation, Outcome

#: A moment on the time line, a version of a document, or an operation, by position.
_Node = tuple[str, str, int]


def find_crossing(operations: Sequence[Operation], first: Mapping[str, int]) -> tuple[Operation, ...]:
    """Operations of which each comes before the next, and the last before the first; or none."""
    if not any(each.kind is Kind.LIST for each in operations):
        return ()
    graph = _Graph()
    told = [each for each in operations if each.outcome in (Outcome.OK, Outcome.CONFLICT) and not each.stale]
    _add_time(graph, told)
    tops = _add_versions(graph, told, first)
    deleted = {each.name for each in operations if each.kind is Kind.DELETE}
    for number, operation in enumerate(told):
        if operation.kind is Kind.LIST:
            node = ("operation", "", number)
            rows = {row.name: row.version for row in operation.rows}
            for name, top in tops.items():
                version = rows.get(name, ABSENT)
                if version != ABSENT:
                    graph.between(node, name, version, top)
                elif name.startswith(operation.name) and name not in deleted and not first.get(name):
                    graph.between(node, name, ABSENT, top)
    return tuple(told[number] for kind, _, number in graph.cycle() if kind == "operation")


class _Graph:
    """What comes before what."""

    def __init__(self) -> None:
        self._after: dict[_Node, list[_Node]] = {}
        self._made: dict[tuple[str, int], _Node] = {}

    def made(self, name: str, version: int, by: _Node) -> None:
        """The node that makes a version. Order: before that version is used."""
        self._made[name, version] = by

    def version(self, name: str, version: int) -> _Node:
        """The moment from which the document is at *version*."""
        return self._made.get((name, version), ("version", name, version))

    def before(self, earlier: _Node, later: _Node) -> None:
        self._after.setdefault(earlier, []).append(later)
        self._after.setdefault(later, [])

    def between(self, node: _Node, name: str, version: int, top: int) -> None:
        """*node* saw *version*: it stands after its write and before the next one."""
        self.before(self.version(name, version), node)
        if version < top:
            self.before(node, self.version(name, version + 1))

    def cycle(self) -> list[_Node]:
        """One cycle; empty when there is none. (Kahn: take away what nothing stands before.)"""
        before = dict.fromkeys(self._after, 0)
        for followers in self._after.values():
            for follower in followers:
                before[follower] += 1
        free = [node for node, count in before.items() if not count]
        for node in free:
            for follower in self._after[node]:
                before[follower] -= 1
                if not before[follower]:
                    free.append(follower)
        left = {node for node, count in before.items() if count}
        return self._walk(left) if left else []

    def _walk(self, left: set[_Node]) -> list[_Node]:
        """Go backwards from anywhere in *left* until a node comes again: each has one before it there."""
        earlier = {
            follower: node for node in sorted(left) for follower in self._after[node] if follower in left
        }
        node, path, place = min(left), list[_Node](), dict[_Node, int]()
        while node not in place:
            place[node] = len(path)
            path.append(node)
            node = earlier[node]
        return path[place[node] :][::-1]


def _add_time(graph: _Graph, operations: Sequence[Operation]) -> None:
    """Whatever has returned stands before whatever is invoked later. Equal times: together."""
    moments = [(each.invoked, 0, number) for number, each in enumerate(operations)]
    moments += [(each.returned, 1, number) for number, each in enumerate(operations)]
    now: _Node = ("time", "", 0)
    for _, is_return, number in sorted(moments):
        operation = ("operation", "", number)
        if is_return:
            graph.before(now, later := ("time", "", now[2] + 1))
            graph.before(operation, later)
            now = later
        else:
            graph.before(now, operation)


def _add_versions(graph: _Graph, operations: Sequence[Operation], first: Mapping[str, int]) -> dict[str, int]:
    """The versions of each document in their order; the highest of each."""
    tops: dict[str, int] = {}
    for number, operation in enumerate(operations):
        if operation.kind is Kind.LIST:
            for row in operation.rows:
                tops[row.name] = max(tops.get(row.name, 0), row.version)
            continue
        tops[operation.name] = max(tops.get(operation.name, 0), operation.version)
        if operation.is_write and operation.outcome is Outcome.OK:
            graph.made(operation.name, operation.version, ("operation", "", number))
    for name, top in tops.items():
        for version in range(first.get(name, ABSENT) + 1, top + 1):
            graph.before(graph.version(name, version - 1), graph.version(name, version))
    for number, operation in enumerate(operations):
        is_look = operation.kind is Kind.GET or operation.outcome is Outcome.CONFLICT
        if is_look and operation.version != ABSENT:
            graph.between(("operation", "", number), operation.name, operation.version, tops[operation.name])
    return tops
