"""Clusters of real sidecars for the tests of this folder; a failing test shows their logs."""

from collections.abc import Generator, Iterator

import pytest

from tests.harness.addresses import LoopbackNetwork
from tests.harness.cluster import Cluster


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, "pytest.TestReport", None]:
    """Add the logs of every open cluster to the report of a failed test."""
    made = yield
    report = made.get_result()
    if report.failed:
        for cluster in Cluster.opened:
            report.sections.append((f"cluster {cluster.directory}", cluster.logs()))


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[Cluster]:
    """Three hosts on loopback addresses, shared by the tests of a module; each leaves it whole."""
    with Cluster(LoopbackNetwork()) as made:
        made.found()
        yield made


@pytest.fixture
def cluster(module_cluster: Cluster) -> Cluster:
    """The module's cluster, with every host running."""
    module_cluster.heal()
    return module_cluster
