"""Nodes and studies; see `tests.support.node_fixtures`."""

from tests.support.node_fixtures import negative_series, node_in, positive_series, without_finding  # noqa: F401  fixtures
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture
