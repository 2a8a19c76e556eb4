"""What the reconciler counts on of a sidecar; the toy and the real one must both pass it."""

from dataclasses import replace

import pytest

from mesh.errors import InvalidRequest, StaleTerm, VersionConflict
from mesh.ids import FencingTerm, OwnedName, ServiceName
from mesh.state.model import Fence
from mesh.state.service import ServiceSpec
from services.reconciler.model import MARK, Apply, Declared, Stop
from services.reconciler.supervisor import Supervisor
from tests.harness.database import wait_until_async

SPEC = ServiceSpec(ServiceName("suite-api"), ("/usr/bin/sleep", "1000"), environment=((MARK, "inst/suite"),))


#: An owner that was never assigned.
NOBODY = Fence(OwnedName("service/nobody"), FencingTerm(7))


async def check_supervisor(target: str) -> None:
    """Declared, seen, compared, changed, refused, stopped; the service is gone at the end."""
    async with Supervisor(target) as supervisor:

        async def found() -> Declared | None:
            return (await supervisor.services()).get(SPEC.name)

        await supervisor.perform(Stop(SPEC.name, 1))  # of what is not there: done
        await supervisor.perform(Apply(SPEC, 0))
        first = await found()
        assert first is not None
        assert (first.spec, first.stopped, first.mark) == (SPEC, False, "inst/suite")

        async def is_ready() -> bool:
            present = await found()
            return present is not None and present.ready == 1 and not present.degraded_reason

        await wait_until_async(is_ready, 20.0)
        await supervisor.perform(Apply(SPEC, 0))  # as it is already: nothing to refuse
        other = replace(SPEC, grace_ms=1_000)
        with pytest.raises(VersionConflict):
            await supervisor.perform(Apply(other, 0))
        await supervisor.perform(Apply(other, first.version))
        second = await found()
        assert second is not None
        assert (second.spec, second.version > first.version) == (other, True)
        with pytest.raises(InvalidRequest):
            await supervisor.perform(
                Apply(replace(SPEC, depends_on=(ServiceName("nobody"),)), second.version)
            )
        with pytest.raises(VersionConflict):
            await supervisor.perform(Stop(SPEC.name, first.version))
        async with Supervisor(target, NOBODY) as stale:
            for action in (Apply(SPEC, second.version), Stop(SPEC.name, second.version)):
                with pytest.raises(StaleTerm):
                    await stale.perform(action)
        third = await found()
        assert third is not None
        assert (third.spec, third.version) == (second.spec, second.version), "nothing was changed"
        await supervisor.perform(Stop(SPEC.name, second.version))
        assert await found() is None
