"""The fault campaign in its short form; `make faults` is the long one."""

import pytest

from tests.faults.campaign import campaign
from tests.faults.fault_schedule import AWS

SEEDS = range(1, 13)
# Seeds that once found something, and what.
REGRESSIONS = {
    100995: "a rotation that broke off, and was never begun again",
    20327: "a second request, when the look for an unconfirmed one was answered 403",
    30198: "the same, with a redirect",
    30204: "the same, with a conflict",
}


@pytest.mark.faults
def test_anything_that_fails_every_agent_ends_once_or_is_kept():
    total = campaign([*SEEDS, *REGRESSIONS], workers=2)
    assert total.violations == [], "\n\n".join(total.violations)
    assert total.lost == 0
    assert total.runs == len(SEEDS) + len(REGRESSIONS)
    assert total.agents > 500
    # Not a campaign without faults on every boundary.
    assert {kind.partition(":")[0] for kind in total.faults} >= {
        "api",
        "connection",
        "killed",
        "queue",
        "token",
        *AWS,
    }
