"""The field names of `--json` are part of the stable surface."""

from io import StringIO

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from trellis.cluster.v1 import cluster_pb2 as cluster
from trellis.config_sync.v1 import config_sync_pb2 as config_sync
from trellis.heartbeat.v1 import heartbeat_pb2 as heartbeat
from trellis.membership.v1 import membership_pb2 as membership
from trellis.supervisor.v1 import supervisor_pb2 as supervisor

from sidecar.cli import shapes, tables

HOST = membership.Host(
    host="host1",
    member="host1.2",
    role=membership.MEMBER_ROLE_VOTER,
    address="127.0.0.1:7400",
    status=membership.HOST_STATUS_ALIVE,
    leader=True,
    applied_index=41,
    last_beat_age=Duration(nanos=40_000_000),
    version="0.1.0",
)
INSTANCE = heartbeat.InstanceReport(
    instance="echo@host1#0",
    service="echo",
    generation=3,
    state=heartbeat.INSTANCE_STATE_BACKOFF,
    pid=0,
    restarts=2,
    reason="exit code 1",
    spec_version=1,
)
SERVICE = supervisor.Service(
    spec=supervisor.ServiceSpec(
        name="echo", mode=supervisor.SERVICE_MODE_ACTIVE_ACTIVE, instances_min=1, instances_max=3
    ),
    version=1,
    instances=[INSTANCE],
    degraded_reason="0 of 1 instances are ready",
)
STATUS = cluster.GetStatusResponse(
    cluster_id="ab" * 16,
    host_id="host1",
    incarnation=2,
    term=7,
    leader="host1",
    commit_index=42,
    applied_index=41,
    role="leader",
    lease_left=Duration(seconds=1, nanos=150_000_000),
    owners=[
        cluster.Ownership(name="service/reporter", fencing_term=2),
        cluster.Ownership(name="vip", host="host1", fencing_term=5, successor="host2"),
    ],
    hosts=[HOST],
    services=[SERVICE],
)


def test_a_status_has_the_promised_fields() -> None:
    """Goal: no field is renamed or changes its unit. Method: a full answer against the expected object."""
    shape = shapes.status_shape(STATUS)
    assert {
        "cluster_id": "ab" * 16,
        "host_id": "host1",
        "incarnation": 2,
        "term": 7,
        "leader": "host1",
        "commit_index": 42,
        "applied_index": 41,
        "role": "leader",
        "lease_ms_left": 1150.0,
        "postgres": None,
        "owners": {
            "service/reporter": {"host": None, "fencing_term": 2},
            "vip": {"host": "host1", "fencing_term": 5, "successor": "host2"},
        },
    }.items() <= shape.items()
    assert shape["hosts"] == [shapes.host_shape(HOST)]
    assert shape["services"] == [shapes.service_shape(SERVICE)]


def test_a_status_without_a_leader_says_null() -> None:
    """Goal: scripts need no empty-string check. Method: an answer without a leader."""
    assert shapes.status_shape(cluster.GetStatusResponse(role="follower"))["leader"] is None


def test_a_northbound_port_that_is_shut_is_shown_with_the_reason() -> None:
    """Goal: people and scripts see it. Method: a status with a problem, as JSON and as a table."""
    shut = cluster.GetStatusResponse(role="leader", northbound_problems=["Envoy cannot listen"])
    shape = shapes.status_shape(shut)
    assert (shape["northbound_listening"], shape["northbound_problems"]) == (False, ["Envoy cannot listen"])
    console = Console(width=120, record=True, file=StringIO())
    console.print(tables.status_view(shut))
    assert "closed" in (text := console.export_text())
    assert "Envoy cannot listen" in text


def test_words_of_the_contract_are_shown_as_the_vocabulary_has_them() -> None:
    """Goal: no UPPER_SNAKE of the wire, no zero that means unknown.

    Method: host, service and instance, heard and unheard.
    """
    assert shapes.host_shape(HOST)["role"] == "voter"
    assert shapes.host_shape(HOST)["last_beat_ms"] == 40.0
    unheard = shapes.host_shape(membership.Host(host="host2", role=HOST.role, status=HOST.status))
    assert (unheard["last_beat_ms"], unheard["applied_index"]) == (None, None)
    assert shapes.service_shape(SERVICE)["mode"] == "active-active"
    instance = shapes.instance_shape(INSTANCE)
    assert (instance["host"], instance["state"], instance["pid"]) == ("host1", "backoff", None)


def test_a_value_is_text_when_it_can_be_and_base64_when_not() -> None:
    """Goal: JSON is valid for every value and loses none. Method: UTF-8, bytes, and none asked for."""
    text = shapes.document_shape(config_sync.Document(name="a", value="für".encode()))
    raw = shapes.document_shape(config_sync.Document(name="a", value=b"\xff\x00"))
    listed = shapes.document_shape(config_sync.Document(name="a", size_bytes=9), with_value=False)
    assert text["value"] == "für"
    assert (raw["value_base64"], "value" in raw) == ("/wA=", False)
    assert "value" not in listed


def test_an_event_has_its_time_for_people_and_for_programs() -> None:
    """Goal: order within a millisecond is kept for programs. Method: one event with odd nanoseconds."""
    event = cluster.Event(index=9, at=Timestamp(seconds=1, nanos=500), kind="host-lost", subject="host2")
    shape = shapes.event_shape(event)
    assert (shape["at"], shape["at_ns"]) == ("1970-01-01T00:00:01.000+00:00", 1_000_000_500)


def test_the_status_view_shows_hosts_owners_and_why_a_service_is_degraded() -> None:
    """Goal: at night one screen suffices. Method: render it, look for each fact."""
    wide = Console(width=160, no_color=True)
    with wide.capture() as printed:
        wide.print(tables.status_view(STATUS))
    for text in ("host1 in term 7", "host1 → host2", "0/1", "exit code 1", "0 of 1 instances are ready"):
        assert text in printed.get()
