"""Joining over real TLS: admitted once, repeatable at every step, refused with the reason."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

from mesh.errors import Conflict, Denied, InvalidRequest, TrellisError, Unavailable
from mesh.identity.files import IdentityFiles
from mesh.identity.token import TokenText
from mesh.ids import HostId
from mesh.state.model import HostStatus, MemberRole
from mesh.wire.errors import from_rpc_error
from sidecar.membership import initialise, join
from sidecar.membership.join import load_seeds
from tests.membership.founded import Founded, founded, settings

IP1, IP2, IP3 = "127.0.12.1", "127.0.12.2", "127.0.12.3"


async def token(cluster: Founded, host: str = "", lifetime_s: int = 60, witness: bool = False) -> str:
    request = membership_pb2.CreateTokenRequest(
        lifetime=Duration(seconds=lifetime_s), host=host, witness=witness
    )
    return (await admin(cluster, "CreateToken", request)).token  # type: ignore[no-any-return]


async def admin(cluster: Founded, method: str, request: Any) -> Any:
    async with grpc.aio.insecure_channel(f"unix:{cluster.settings.admin_socket}") as channel:
        stub = membership_pb2_grpc.MembershipServiceStub(channel)
        try:
            return await getattr(stub, method)(request, timeout=5)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc_error(failure) from None


async def test_a_host_joins_as_a_learner_with_an_identity_of_its_own(tmp_path: Path) -> None:
    """Goal: it can act as a member, and cannot vote yet. Method: join; compare identity, row and seeds."""
    async with founded(tmp_path, IP1) as cluster:
        own = settings(tmp_path, "host2", IP2)
        steps: list[str] = []
        joined = await join(own, await token(cluster), timeout_s=5, on_step=steps.append)
        assert (joined.cluster_id, joined.member) == (cluster.identity.cluster_id, "host2.1")
        assert len(steps) == 3
        identity = IdentityFiles(own.identity_dir).load()
        assert identity is not None
        assert identity.sealing_key == cluster.identity.sealing_key
        row = cluster.replicated.state.members[joined.member]
        assert (row.role, row.address) == (MemberRole.LEARNER, f"{IP2}:7400")
        assert row.certificate_serial == f"{identity.certificate.serial_number:x}"
        assert load_seeds(own) == {"host1.1": f"{IP1}:7400"}


async def test_joining_again_with_the_same_token_changes_nothing(tmp_path: Path) -> None:
    """Goal: provisioning may be repeated. Method: the same host, the same token."""
    async with founded(tmp_path, IP1) as cluster:
        own, text = settings(tmp_path, "host2", IP2), await token(cluster)
        first = await join(own, text, timeout_s=5)
        again = await join(own, text, timeout_s=5)
        assert again.unchanged
        assert again.member == first.member


@pytest.mark.parametrize("lost", ["cluster.json", "seeds and identity", "answer"])
async def test_an_interrupted_join_is_finished_by_repeating_it(tmp_path: Path, lost: str) -> None:
    """Method: undo what a crash at that moment would not have written, and run it again."""
    async with founded(tmp_path, IP1) as cluster:
        own, text = settings(tmp_path, "host2", IP2), await token(cluster)
        files = IdentityFiles(own.identity_dir)
        if lost == "answer":
            cluster.replicated.lose_answers = 1
        first = await join(own, text, timeout_s=5)
        identity = files.load()
        assert identity is not None
        if lost != "answer":
            files.save_pending_key(identity.key_pem)
            (own.identity_dir / "cluster.json").unlink()
        if lost == "seeds and identity":
            (own.host.data_dir / "seeds.json").unlink()
            (own.identity_dir / "current").unlink()
        again = await join(own, text, timeout_s=5)
        assert again.member == first.member == "host2.1"
        finished = files.load()
        assert finished is not None
        row = cluster.replicated.state.members[again.member]
        assert row.certificate_serial == f"{finished.certificate.serial_number:x}"
        assert load_seeds(own) == {"host1.1": f"{IP1}:7400"}


async def test_one_token_admits_one_host(tmp_path: Path) -> None:
    """Goal: a copied token is worthless once used. Method: a second host with it."""
    async with founded(tmp_path, IP1) as cluster:
        text = await token(cluster)
        await join(settings(tmp_path, "host2", IP2), text, timeout_s=5)
        with pytest.raises(Denied, match="has been used"):
            await join(settings(tmp_path, "host3", IP3), text, timeout_s=5)
        assert set(cluster.replicated.state.hosts) == {"host1", "host2"}


async def test_two_hosts_racing_for_one_token_are_not_both_admitted(tmp_path: Path) -> None:
    """Goal: the same when both come at once. Method: two joins in parallel."""
    async with founded(tmp_path, IP1) as cluster:
        text = await token(cluster)
        outcomes = await asyncio.gather(
            join(settings(tmp_path, "host2", IP2), text, timeout_s=5),
            join(settings(tmp_path, "host3", IP3), text, timeout_s=5),
            return_exceptions=True,
        )
        assert sorted(isinstance(outcome, Denied) for outcome in outcomes) == [False, True]


async def test_tokens_that_are_unknown_expired_or_for_another_host_are_denied(tmp_path: Path) -> None:
    """Goal: nothing is left on either side. Method: three tokens, then identity and members."""
    async with founded(tmp_path, IP1) as cluster:
        good = TokenText.decode(await token(cluster))
        wrong = TokenText(good.cluster_id, "wrong", good.ca_pem, good.addresses).encode()
        expired = await token(cluster, lifetime_s=1)
        for_host3 = await token(cluster, host="host3")
        own = settings(tmp_path, "host2", IP2)
        for text in (wrong, for_host3):
            with pytest.raises(Denied, match="not valid here"):
                await join(own, text, timeout_s=5)
        cluster.skew_ns = 2_000_000_000
        with pytest.raises(Denied, match="expired"):
            await join(own, expired, timeout_s=5, now_ns=cluster.now_ns)
        assert IdentityFiles(own.identity_dir).load() is None
        assert list(cluster.replicated.state.members) == ["host1.1"]


async def test_a_token_of_another_cluster_finds_the_wrong_authority(tmp_path: Path) -> None:
    """Method: a cluster is founded anew at the same address; the old token still points there."""
    async with founded(tmp_path / "old", IP1) as cluster:
        old = await token(cluster)
    async with founded(tmp_path / "new", IP1):
        with pytest.raises(Conflict, match="signed by another authority"):
            await join(settings(tmp_path, "host2", IP2), old, timeout_s=5)


async def test_a_host_that_founded_a_cluster_itself_does_not_join_another(tmp_path: Path) -> None:
    """Goal: two clusters never merge by accident. Method: init, then join."""
    async with founded(tmp_path, IP1) as cluster:
        own = settings(tmp_path, "host2", IP2)
        other = initialise(own)
        with pytest.raises(Conflict, match=f"belongs to cluster {other} as host2.1"):
            await join(own, await token(cluster), timeout_s=5)


async def test_a_machine_that_does_not_fit_is_told_everything_at_once(tmp_path: Path) -> None:
    """Goal: no mending in rounds. Method: too small a disk and foreign addresses."""
    async with founded(tmp_path, IP1) as cluster:
        own = settings(tmp_path, "host2", "192.0.2.9")
        own = own.model_copy(update={"join": own.join.model_copy(update={"disk_mib_min": 1 << 40})})
        with pytest.raises(InvalidRequest) as refused:
            await join(own, await token(cluster), timeout_s=5)
        paths = {problem.path for problem in refused.value.problems}
        assert {"join.disk_mib_min", "mesh.address", "mesh.join_address"} <= paths


async def test_a_host_outside_the_subnet_does_not_join(tmp_path: Path) -> None:
    """Goal: a virtual IP that could never move there is prevented.

    Method: a token that points into another subnet.
    """
    async with founded(tmp_path, IP1) as cluster:
        good = TokenText.decode(await token(cluster))
        elsewhere = ((HostId("host1"), "10.99.0.1:7401"),)
        text = TokenText(good.cluster_id, good.secret, good.ca_pem, elsewhere).encode()
        with pytest.raises(InvalidRequest, match="inside one subnet"):
            await join(settings(tmp_path, "host2", IP2), text, timeout_s=5)


async def test_a_clock_that_differs_is_refused(tmp_path: Path) -> None:
    """Goal: certificates and journals of a wrong clock do not come in. Method: skew the cluster by 1.5 s."""
    async with founded(tmp_path, IP1) as cluster:
        text = await token(cluster)
        cluster.skew_ns = 1_500_000_000
        with pytest.raises(InvalidRequest, match=r"clock differs by \d{4} ms, at most 1000"):
            await join(settings(tmp_path, "host2", IP2), text, timeout_s=5)


async def test_a_slow_connection_is_not_taken_for_a_wrong_clock(tmp_path: Path) -> None:
    """Method: the first stamp is old, as if connecting had taken long; the second is fresh."""
    async with founded(tmp_path, IP1) as cluster:
        stamps = iter([time.time_ns() - 3_000_000_000])
        joined = await join(
            settings(tmp_path, "host2", IP2),
            await token(cluster),
            timeout_s=5,
            now_ns=lambda: next(stamps, time.time_ns()),
        )
        assert joined.member == "host2.1"


async def test_another_version_name_or_address_is_refused_with_every_reason(tmp_path: Path) -> None:
    """Goal: the server does not rely on its client's checks. Method: a raw request, all wrong."""
    async with founded(tmp_path, IP1) as cluster:
        good = TokenText.decode(await token(cluster))
        request = membership_pb2.JoinRequest(secret=good.secret, host="Host_2", address="x", version="0.0")
        with pytest.raises(InvalidRequest) as refused:
            await admin(cluster, "Join", request)
        assert {problem.path for problem in refused.value.problems} >= {"host", "address", "version", "now"}


async def test_the_name_of_a_living_host_and_the_address_of_another_are_taken(tmp_path: Path) -> None:
    """Goal: two machines never answer for one host.

    Method: a twin by name, alive and suspect, and one by address.
    """
    async with founded(tmp_path, IP1) as cluster:
        await join(settings(tmp_path, "host2", IP2), await token(cluster), timeout_s=5)
        await cluster.heard_from("host2")
        twin = settings(tmp_path / "twin", "host2", IP3)
        for status in (HostStatus.ALIVE, HostStatus.SUSPECT):
            await cluster.heard_from("host2", status)
            with pytest.raises(Conflict, match=rf"host2 is {status.value} as host2\.1"):
                await join(twin, await token(cluster), timeout_s=5)
        same_address = settings(tmp_path, "host3", IP2)
        with pytest.raises(Conflict, match=r"is the address of host2\.1"):
            await join(same_address, await token(cluster), timeout_s=5)


async def test_a_lost_host_comes_back_as_a_new_incarnation_and_its_old_certificate_is_revoked(
    tmp_path: Path,
) -> None:
    """Goal: a wiped host neither votes as before nor leaves a key behind.

    Method: lose it, join from an empty directory.
    """
    async with founded(tmp_path, IP1) as cluster:
        before = await join(settings(tmp_path, "host2", IP2), await token(cluster), timeout_s=5)
        old = cluster.replicated.state.members[before.member]
        await cluster.heard_from("host2")
        await cluster.heard_from("host2", HostStatus.LOST)
        wiped = settings(tmp_path / "wiped", "host2", IP2)
        after = await join(wiped, await token(cluster), timeout_s=5)
        assert after.member == "host2.2"
        assert set(cluster.replicated.state.members) == {"host1.1", "host2.2"}
        assert old.certificate_serial in cluster.replicated.state.revoked


async def test_without_an_answer_the_reason_and_the_address_are_told(tmp_path: Path) -> None:
    """Goal: no leader and no answer are told apart. Method: a cluster without leader, then stopped."""
    async with founded(tmp_path, IP1) as cluster:
        text = await token(cluster)
        cluster.replicated.has_leader = False
        with pytest.raises(TrellisError, match="no leader is known"):
            await join(settings(tmp_path, "host2", IP2), text, timeout_s=0.5)
    with pytest.raises(Unavailable, match=f"host1 at {IP1}:7401 does not answer"):
        await join(settings(tmp_path, "host2", IP2), text, timeout_s=0.5)


async def test_a_witness_joins_by_a_token_for_one_and_is_given_no_sealing_key(tmp_path: Path) -> None:
    """Goal: a machine that only votes can open no secret. Method: join by such a token, read its identity."""
    async with founded(tmp_path, IP1) as cluster:
        own = settings(tmp_path, "host2", IP2)
        joined = await join(own, await token(cluster, witness=True), timeout_s=5)
        identity = IdentityFiles(own.identity_dir).load()
        assert identity is not None
        assert identity.sealing_key == b""
        assert cluster.replicated.state.members[joined.member].role is MemberRole.WITNESS


async def test_hosts_are_listed_and_removed_with_reasons(tmp_path: Path) -> None:
    """Goal: an operator sees why a removal is refused and can insist. Method: leader, living host, force."""
    async with founded(tmp_path, IP1) as cluster:
        await join(settings(tmp_path, "host2", IP2), await token(cluster), timeout_s=5)
        await cluster.heard_from("host2")
        listed = (await admin(cluster, "ListHosts", membership_pb2.ListHostsRequest())).hosts
        assert [(host.host, host.leader) for host in listed] == [("host1", True), ("host2", False)]
        assert listed[0].last_beat_age.ToMilliseconds() == 7
        remove = membership_pb2.RemoveHostRequest
        with pytest.raises(Conflict, match="hand over first"):
            await admin(cluster, "RemoveHost", remove(host="host1", force=True))
        with pytest.raises(InvalidRequest, match="alive and in service"):
            await admin(cluster, "RemoveHost", remove(host="host2"))
        await admin(cluster, "RemoveHost", remove(host="host2", force=True))
        assert list(cluster.replicated.state.hosts) == ["host1"]


async def test_the_join_listener_is_for_joining_only(tmp_path: Path) -> None:
    """Goal: without a certificate nothing but Join is open. Method: ask it for a token."""
    async with founded(tmp_path, IP1) as cluster:
        trusted = grpc.ssl_channel_credentials(cluster.identity.ca_pem)
        options = cluster.credentials.channel_options(HostId("host1"))
        address = str(cluster.settings.mesh.join_address)
        async with grpc.aio.secure_channel(address, trusted, options=options) as channel:
            stub = membership_pb2_grpc.MembershipServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateToken(membership_pb2.CreateTokenRequest(), timeout=5)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_seeds_are_plain_addresses_by_member(tmp_path: Path) -> None:
    """Goal: a host finds its peers before it has state, and a torn file is told.

    Method: none, good, damaged.
    """
    own = settings(tmp_path, "host2", IP2)
    assert load_seeds(own) == {}
    own.host.data_dir.mkdir()
    (own.host.data_dir / "seeds.json").write_text(json.dumps({"host1.1": "10.0.0.1:7400"}))
    assert load_seeds(own) == {"host1.1": "10.0.0.1:7400"}
    (own.host.data_dir / "seeds.json").write_text("[")
    with pytest.raises(TrellisError):
        load_seeds(own)
