"""What the admin servers show: documents, events, ownerships, hosts, services."""

from mesh.ids import VIP, DocumentName, FencingTerm, Index
from mesh.state.model import (
    DeclaredService,
    Document,
    Event,
    HostRecord,
    HostStatus,
    MemberRole,
    Ownership,
)
from mesh.wire.documents import document_to_wire
from mesh.wire.enums import HOST_STATUS, MEMBER_ROLE
from mesh.wire.events import event_to_wire, ownership_to_wire
from mesh.wire.membership import host_to_wire
from mesh.wire.service import decode_instance, decode_spec, encode_service
from tests.state.model_state import A, B, C, member, spec, status

AT_NS = 1_764_000_000_123_456_789


def test_a_document_is_shown_with_its_size_also_without_its_value() -> None:
    """Goal: a list need not carry megabytes to tell them. Method: with and without the value."""
    document = Document(DocumentName("a"), 3, b"value", Index(9), AT_NS)
    shown = document_to_wire(document)
    assert (shown.value, shown.size_bytes, shown.revision, shown.version) == (b"value", 5, 9, 3)
    assert shown.written.ToNanoseconds() == AT_NS
    listed = document_to_wire(document, with_value=False)
    assert (listed.value, listed.size_bytes) == (b"", 5)


def test_an_event_is_shown_with_its_facts_and_trace() -> None:
    """Goal: from a line of the journal to its trace. Method: every field of one event."""
    event = Event(Index(7), 1, AT_NS, "host-lost", "host2", "host2 is lost", (("before", "alive"),), "ab")
    shown = event_to_wire(event)
    assert dict(shown.attributes) == {"before": "alive"}
    assert (shown.index, shown.kind, shown.trace_id) == (7, "host-lost", "ab")
    assert shown.at.ToNanoseconds() == AT_NS


def test_an_ownership_without_holder_is_shown_with_empty_names() -> None:
    """Goal: nobody is not shown as somebody. Method: unheld and held with a successor."""
    shown = ownership_to_wire(Ownership(VIP, None, FencingTerm(4), Index(9)))
    assert (shown.host, shown.successor, shown.fencing_term) == ("", "", 4)
    held = ownership_to_wire(Ownership(VIP, A, FencingTerm(5), Index(9), B))
    assert (held.host, held.successor) == (A, B)


def test_a_host_is_shown_with_what_is_known_of_it() -> None:
    """Goal: a follower that heard no beats does not claim an age of zero. Method: with and without them."""
    record = HostRecord(A, member(A).member, HostStatus.SUSPECT, draining=True)
    unknown = host_to_wire(record, member(A))
    assert (unknown.applied_index, unknown.HasField("last_beat_age")) == (0, False)
    known = host_to_wire(record, member(A), leader=True, applied=Index(8), last_beat_age_ms=1_250)
    assert (known.leader, known.applied_index, known.last_beat_age.ToMilliseconds()) == (True, 8, 1_250)
    assert known.status == HOST_STATUS.encode(HostStatus.SUSPECT)
    assert known.role == MEMBER_ROLE.encode(MemberRole.VOTER)


def test_a_service_is_shown_with_its_instances_sorted() -> None:
    """Goal: two looks can be compared. Method: instances in the wrong order; spec and instances read back."""
    declared = DeclaredService(spec(), 4, stopped=True)
    shown = encode_service(
        declared, (status(C), status(A)), degraded_reason="why", fencing_term=FencingTerm(2)
    )
    assert decode_spec(shown.spec) == spec()
    assert [decode_instance(each, host) for each, host in zip(shown.instances, (A, C), strict=True)] == [
        status(A),
        status(C),
    ]
    assert (shown.version, shown.stopped, shown.degraded_reason, shown.fencing_term) == (4, True, "why", 2)
