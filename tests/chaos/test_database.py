"""A short run of the faults of the database that no test of tests/database has, under the campaign's load."""

from collections.abc import Iterator

import pytest

from tests.chaos import database_faults
from tests.chaos.campaign import Campaign
from tests.chaos.fault import Fault
from tests.chaos.main import staged
from tests.harness import namespaces, postgres

pytestmark = pytest.mark.integration

SEED = 21
KINDS = (database_faults.PrimaryFrozen, database_faults.WalSenderKilled, database_faults.WalSenderFrozen)


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    """One that goes on until the last test of this module."""
    if reason := namespaces.why_not() or postgres.why_not():
        pytest.skip(reason)
    print(f"seed {SEED}")
    with staged(has_database=True) as stage:
        made = Campaign(stage, SEED, is_short=True)
        with made:
            yield made
        assert not made.report.violations, made.report.violations
        assert made.report.rows


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.kind)
def test_the_database_keeps_its_promises_through(campaign: Campaign, kind: type[Fault]) -> None:
    """Goal: no acknowledged row is lost, no two servers acknowledge, and all standbys stream after it.

    Method: inject, let it last, heal; rows are inserted by the listeners of all hosts meanwhile.
    """
    assert not campaign.one_round(kind)
