"""The reconciler's connection to a sidecar: the toy that its tests use is as the real one."""

import pytest

from tests.harness.toy_supervisor import ToySupervisor
from tests.services.reconciler.suite import check_supervisor

pytestmark = pytest.mark.integration


async def test_the_toy_is_as_a_sidecar() -> None:
    """Goal: what passes with the toy passes with a sidecar. Method: the suite of both."""
    toy = ToySupervisor()
    try:
        await check_supervisor(f"ipv4:{toy.address}")
    finally:
        toy.close()
