"""Clusters with a database for the tests of this folder; a failing test shows their logs."""

from collections.abc import Generator, Iterator

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster
from tests.harness.database_cluster import DatabaseCluster, why_not


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, "pytest.TestReport", None]:
    """Add the logs of every open cluster to the report of a failed test."""
    made = yield
    report = made.get_result()
    if report.failed:
        for cluster in Cluster.opened:
            report.sections.append((f"cluster {cluster.directory}", cluster.logs()))


@pytest.fixture(scope="module")
def module_database() -> Iterator[DatabaseCluster]:
    """Three hosts on loopback addresses, shared by the tests of a module; each leaves it whole."""
    if reason := why_not():
        pytest.skip(reason)
    with DatabaseCluster(LoopbackNetwork()) as made:
        yield made


@pytest.fixture
def database(module_database: DatabaseCluster) -> DatabaseCluster:
    """The module's cluster, with every host running and the database whole."""
    module_database.heal()
    module_database.wait_whole()
    return module_database
