"""The verbs over a store, and peers; see `tests.support.site`."""

from tests.support.site import peer, workflow  # noqa: F401  fixtures
from tests.support.unmeasured import unmeasured_children  # noqa: F401  fixture
from tests.unit.node.workflow.ended_cases import context  # noqa: F401  fixture
