"""What is written for the server, and the folders through crashes: no server runs here."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import Conflict, DataDamaged, SettingsError
from mesh.ids import ClusterId, FencingTerm, HostId, MemberId
from sidecar.postgres.engine import binaries as module
from sidecar.postgres.engine.binaries import find_binaries
from sidecar.postgres.engine.config import (
    FIXED,
    ConfigFiles,
    ServerConfig,
    Upstream,
    check_parameters,
    connection_text,
    hba_text,
    ident_text,
    parameters_text,
    slot_name,
    sync_text,
)
from sidecar.postgres.engine.control_data import crc32c, end_of_record, parse_control_data, read_history
from sidecar.postgres.engine.layout import Layout
from sidecar.postgres.engine.local_data import LEFT_OUT, Standing, take_back_left_out
from sidecar.postgres.engine.observe import server_view
from sidecar.postgres.engine.server_log import cut_if_full, explain, said_since
from sidecar.postgres.history import parse_history
from sidecar.postgres.model import Ancestor, SyncNames, Timeline, parse_lsn

CLUSTER = ClusterId("ab" * 16)
CONFIG = ServerConfig(
    cluster_id=CLUSTER,
    host=HostId("host-1"),
    port=5432,
    listen=("127.0.0.1", "10.0.0.1"),
    members=(MemberId("host-2.3"), MemberId("host-1.1")),
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "postgres", tmp_path / "run")
    made.prepare()
    return made


def test_a_declaration_cannot_hide_warnings_from_clients() -> None:
    """Goal: a cancelled wait for standbys is told. Method: declare what hides it."""
    (problem,) = check_parameters((("client_min_messages", "error"),))
    assert problem.path == "parameters.client_min_messages"


def test_a_declaration_cannot_change_what_safety_rests_on(layout: Layout) -> None:
    """Goal: fsync stays on.

    Method: every fixed parameter declared; each refused, and overridden if it came through.
    """
    bad = tuple((name, "nonsense") for name in (*FIXED, "primary_conninfo", "synchronous_standby_names"))
    assert [problem.path for problem in check_parameters(bad)] == [f"parameters.{name}" for name, _ in bad]
    text = parameters_text(layout, replace(CONFIG, parameters=bad), 1, 15)
    assert "nonsense" not in text
    assert "syncfs" in text
    assert "syncfs" not in parameters_text(layout, CONFIG, 1, 13)  # which does not know it
    assert check_parameters((("work_mem", "8MB"), ("pg_stat_statements.max", "100"))) == []
    for name in (
        "client_min_messages",
        "data_sync_retry",
        "ignore_checksum_failure",
        "ignore_invalid_pages",
        "recovery_min_apply_delay",
        "restore_command",
        "zero_damaged_pages",
    ):
        assert len(check_parameters(((name, "x"),))) == 1, name
    tricks = (
        ("Work Mem", "1"),
        ("work_mem", "1\nfsync=off"),
        ("include", "/tmp/mine"),
        ("recovery_target", "immediate"),
    )
    assert len(check_parameters(tricks)) == len(tricks)


def test_values_are_quoted(layout: Layout) -> None:
    """Goal: no value becomes another line. Method: quotes and backslashes."""
    text = parameters_text(layout, replace(CONFIG, parameters=(("archive_command", "cp '%p' \\x"),)), 1, 15)
    assert "archive_command = 'cp ''%p'' \\\\x'\n" in text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (SyncNames(0, ()), ""),
        (SyncNames(1, (HostId("host-2"), HostId("host3"))), 'ANY 1 ("host-2", "host3")'),
        (SyncNames(2, (HostId("a"), HostId("b"), HostId("c"))), 'ANY 2 ("a", "b", "c")'),
    ],
)
def test_synchronous_names_are_written_as_postgres_reads_them(names: SyncNames, text: str) -> None:
    """Goal: the set that was meant. Method: none, one of two, two of three."""
    assert sync_text(names) == text


def test_every_host_has_a_slot_of_its_own() -> None:
    """Goal: no two hosts share a slot, none is too long. Method: names that differ at the end only."""
    long = [HostId("a" * 62 + end) for end in "bc"]
    hosts = [HostId("host-1"), HostId("host1"), HostId("host-11"), *long]
    found = [slot_name(host) for host in hosts]
    assert len(set(found)) == len(hosts)
    assert all(len(name) <= 63 and name.replace("_", "").isalnum() for name in found)


def test_the_network_never_leads_to_the_superuser() -> None:
    """Goal: the first line that fits decides right.

    Method: read the lines for each version, open and closed.
    """
    for major in (13, 14, 17):
        for is_open in (False, True):
            lines = hba_text(major, is_open=is_open).splitlines()
            network = [line for line in lines if line.startswith("host")]
            rejected = next(i for i, line in enumerate(network) if "trellis_admin" in line)
            allowed = [i for i, line in enumerate(network) if "scram" in line]
            assert all(i > rejected for i in allowed)
            assert bool(allowed) is is_open
            assert network[-1] == "host all all all reject"
            assert ("clientname=DN" in network[0]) is (major >= 14)


def test_a_certificate_of_an_earlier_incarnation_is_nobody() -> None:
    """Goal: a removed host stays out. Method: the subject with its incarnation stands in the map."""
    text = ident_text(15, CONFIG, "postgres")
    assert 'hosts "dnQualifier=3,CN=host-2" trellis_replication' in text
    assert 'local "postgres" trellis_admin' in text
    assert 'local "root" trellis_admin' in text
    assert 'hosts "host-2" trellis_rewind' in ident_text(13, CONFIG, "postgres")


def test_a_receiver_checks_whom_it_reaches(layout: Layout) -> None:
    """Goal: WAL only from the host that is meant.

    Method: its TLS name and full verification are asked for.
    """
    source = Upstream(HostId("host-2"), "10.0.0.2", 5432)
    text = connection_text(layout, CONFIG, source, "trellis_replication")
    assert f"host=host-2.{CLUSTER}.trellis hostaddr=10.0.0.2" in text
    assert "sslmode=verify-full" in text
    assert "application_name=host-1" in text
    assert "tcp_user_timeout=3000" in text


def test_the_revision_rises_over_restarts(layout: Layout) -> None:
    """Goal: a loaded file is told from an older one. Method: write, read by another object, write."""
    assert ConfigFiles(layout, 15).write(CONFIG) == 1
    assert ConfigFiles(layout, 15).write(CONFIG) == 2


def test_history_files_are_read(tmp_path: Path) -> None:
    """Goal: where timelines parted. Method: a file of two promotions, a missing one, a damaged one."""
    found = parse_history(Timeline(3), "1\t0/3000148\tno recovery target\n\n2\t1/5000000\tx\n")
    assert found.ancestors == (
        Ancestor(Timeline(1), parse_lsn("0/3000148")),
        Ancestor(Timeline(2), parse_lsn("1/5000000")),
    )
    with pytest.raises(DataDamaged):
        read_history(Path("/nonexistent"), Timeline(2))
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / "00000003.history").write_text("1\t0/3000148\tx\n\x00\x00/50\n")
    with pytest.raises(DataDamaged):
        read_history(tmp_path, Timeline(3))


@pytest.mark.parametrize("crash_after", range(6))
def test_a_change_of_directories_survives_a_crash_anywhere(layout: Layout, crash_after: int) -> None:
    """Goal: always one whole data directory.

    Method: the steps of putting in place, cut off after each; resume.
    """
    layout.make_empty(layout.data)
    (layout.data / "old").touch()
    layout.note(layout.rewind_note, source="host2")  # what stands there is half rewound
    layout.note(layout.clone_note, complete=False)
    layout.make_empty(layout.fresh)
    (layout.fresh / "new").touch()
    steps = (
        lambda: None,
        lambda: layout.note(layout.clone_note, complete=True),
        lambda: layout.data.rename(layout.former),
        lambda: layout.fresh.rename(layout.data),
        lambda: layout.drop_note(layout.rewind_note),
        lambda: layout.drop_note(layout.clone_note),
    )
    for step in steps[: crash_after + 1]:
        step()
    layout.resume()
    if crash_after == 0:
        assert (layout.data / "old").exists()
        assert not layout.fresh.exists()
        assert layout.is_partial
        return
    if crash_after == 1:
        layout.put_in_place()
    assert (layout.data / "new").exists()
    assert (layout.former / "old").exists()
    assert not layout.is_partial
    assert not layout.clone_note.exists()


def test_an_unfinished_clone_is_never_put_in_place(layout: Layout) -> None:
    """Goal: only what was verified is started. Method: put in place without, and with a broken, note."""
    layout.make_empty(layout.fresh)
    for text in (b"", b"{", b"[]", b'{"complete": false}'):
        layout.write(layout.clone_note, text)
        with pytest.raises(Conflict):
            layout.put_in_place()
    assert layout.is_partial


def test_links_that_the_database_plants_are_not_followed(layout: Layout) -> None:
    """Goal: a taken database does not take the host. Method: a link at the name that root writes."""
    layout.make_empty(layout.data)
    victim = layout.root / "victim"
    victim.write_text("mine")
    (layout.data / "postgresql.conf").symlink_to(victim)
    ConfigFiles(layout, 15).point(layout.data)
    assert victim.read_text() == "mine"
    assert not (layout.data / "postgresql.conf").is_symlink()


def test_a_missing_or_broken_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the error says where was looked and what to do.

    Method: an empty folder, programs that are none.
    """
    with pytest.raises(SettingsError, match="lacks postgres, initdb"):
        find_binaries(str(tmp_path), "")
    for program in module.PROGRAMS:
        path = tmp_path / program
        path.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 12.1'\n")
        path.chmod(0o755)
    with pytest.raises(SettingsError, match="version 12; versions 13 to 17"):
        find_binaries(str(tmp_path), "")
    monkeypatch.setattr(module, "_places", lambda: iter(()))
    with pytest.raises(SettingsError, match="nothing found in PATH"):
        find_binaries("", "")


def test_a_socket_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """Goal: told before PostgreSQL fails. Method: a folder of 100 letters."""
    with pytest.raises(SettingsError, match="too long for a unix socket"):
        Layout(tmp_path / "postgres", tmp_path / ("x" * 100)).prepare()


def test_a_full_log_is_cut_and_read_from_where_it_was(tmp_path: Path) -> None:
    """Goal: a bounded log. Method: write over the bound, cut, write on."""
    path = tmp_path / "log"
    path.write_text("old\n" * 1000)
    assert cut_if_full(path, 100)
    assert path.stat().st_size == 0
    assert (tmp_path / "log.1").stat().st_size == 4000
    with path.open("a") as file:
        file.write("FATAL:  could not bind IPv4 address\n")
    assert said_since(path, 4000) == ["FATAL:  could not bind IPv4 address"]
    assert isinstance(explain(said_since(path, 0), tmp_path), Conflict)
    assert os.path.exists(path)


def test_promises_are_kept_over_restarts_and_never_fall(layout: Layout) -> None:
    """Goal: a sealed host stays sealed.

    Method: promise, promise less, read by another object; then damage.
    """
    standing = Standing(layout)
    assert (standing.sealed_under, standing.primary_term) == (0, 0)
    standing.seal(FencingTerm(7))
    standing.seal(FencingTerm(3))
    standing.act(FencingTerm(8))
    assert (Standing(layout).sealed_under, Standing(layout).primary_term) == (7, 8)
    (layout.root / "standing.json").write_text("{")
    with pytest.raises(DataDamaged):
        _ = standing.sealed_under


@pytest.mark.parametrize(
    ("start", "length", "end"),
    [
        ("0/2000028", 114, "0/20000A0"),
        ("0/2001FF0", 114, "0/2002080"),  # over the end of a page: 24 bytes of header
        ("0/2FFFFF0", 114, "0/3000090"),  # over the end of a segment: 40 bytes
    ],
)
def test_the_end_of_a_record_counts_the_headers_it_crosses(start: str, length: int, end: str) -> None:
    """Goal: the end of a clean shutdown is exact. Method: inside a page, over a page, over a segment."""
    assert end_of_record(parse_lsn(start), length, 16 << 20) == parse_lsn(end)


def test_a_control_file_with_one_wrong_bit_is_refused() -> None:
    """Goal: nothing unverified is believed. Method: the checksum's known answer; each byte turned."""
    assert crc32c(b"123456789") == 0xE306_9283
    content = bytearray(8192)
    for layout, at, value in (
        ("=Q", 0, 7321), ("=I", 8, 1300), ("=I", 16, 1), ("=Q", 32, 0x2000028), ("=I", 48, 3),
        ("=B", 176, 1), ("=I", 228, 16 << 20), ("=I", 252, 1),
    ):  # fmt: skip
        struct.pack_into(layout, content, at, value)
    struct.pack_into("=I", content, 288, crc32c(bytes(content[:288])))
    found = parse_control_data(bytes(content), 15)
    assert (found.system_identifier, found.state, found.timeline) == ("7321", "shut down", 3)
    for at in range(292):
        wrong = bytearray(content)
        wrong[at] ^= 1
        with pytest.raises(ValueError, match=r"layout|checksum"):
            parse_control_data(bytes(wrong), 15)
    with pytest.raises(ValueError, match="too few"):
        parse_control_data(bytes(content[:291]), 15)


def test_numbers_left_out_for_a_promotion_that_never_came_are_taken_back(tmp_path: Path) -> None:
    """Goal: a standby that died on the way to its promotion starts again. Method: history files without
    content above the last real one go, those below it stay."""
    real = b"1\t0/3000148\tno recovery target\n"
    for number, content in ((2, LEFT_OUT), (3, real), (4, LEFT_OUT), (5, LEFT_OUT)):
        (tmp_path / f"{number:08X}.history").write_bytes(content)
    take_back_left_out(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002.history", "00000003.history"]


def test_a_beginning_of_a_record_that_came_last_is_no_catching_up() -> None:
    """Goal: a sealed standby's word becomes final. Method: received more than is replayed."""
    row = (
        True, "7000", 1, "0/4042000", "0/4041F68", "", "", False,
        "RecoveryRetrieveRetryInterval", "", "7", "now", False,
    )  # fmt: skip
    assert not server_view(row).is_catching_up
    assert server_view((*row[:8], "", *row[9:])).is_catching_up
