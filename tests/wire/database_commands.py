"""Hypothesis strategies for the commands on the database."""

from typing import Any

from hypothesis import strategies as st

from mesh.ids import FencingTerm, HostId, Incarnation, member_id
from mesh.state import database_commands as d
from mesh.state.database_model import DatabaseRole, DatabaseSpec, DatabaseStatus, Lag, Wants

text = st.text(max_size=12)
hosts = st.sampled_from([HostId(f"host{number}") for number in range(1, 5)])
#: Few numbers, so that some are the present ones.
terms = st.integers(0, 3).map(FencingTerm)
versions = st.integers(0, 3)
groups = st.lists(hosts, max_size=3).map(tuple)
identifiers = st.sampled_from(["", "7301234567890123456", "18446744073709551615", "x"])
parameters = st.dictionaries(text, text, max_size=3).map(lambda each: tuple(each.items()))
specs = st.builds(DatabaseSpec, st.sampled_from([0, 1, 5432, 65_536]), parameters, st.integers(0, 3), groups)
statuses = st.builds(
    DatabaseStatus,
    role=st.sampled_from(DatabaseRole),
    health=text,
    system_identifier=identifiers,
    timeline=versions,
    is_streaming=st.booleans(),
    is_leftover=st.booleans(),
    is_open=st.booleans(),
    lag=st.sampled_from(Lag),
    address=text,
    version=text,
    fencing_term=terms,
    wants=st.sampled_from(Wants),
)
members = st.builds(lambda host, number: member_id(host, Incarnation(number)), hosts, st.integers(1, 2))

switches = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1 << 40)), max_size=3).map(tuple)

SINGLE: dict[type, st.SearchStrategy[Any]] = {
    d.DeclareDatabase: st.builds(d.DeclareDatabase, specs, st.one_of(st.none(), versions)),
    d.RecordBootstrap: st.builds(d.RecordBootstrap, hosts, identifiers, versions, terms, switches),
    d.PublishSyncSet: st.builds(d.PublishSyncSet, hosts, groups, st.integers(0, 4), versions, terms),
    d.RecordPromotion: st.builds(d.RecordPromotion, hosts, versions, terms),
    d.ReportDatabase: st.builds(d.ReportDatabase, hosts, members, st.one_of(st.none(), statuses)),
    d.AcceptDataLoss: st.builds(d.AcceptDataLoss, terms, text, text),
}
