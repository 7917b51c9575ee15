"""Nodes and studies; see `tests.support.node_fixtures`."""

from tests.interop.test_peers import orthanc  # noqa: F401  fixture
from tests.interop.test_retrieve import orthanc as web_orthanc  # noqa: F401  fixture
from tests.support.certificates import certificates  # noqa: F401  fixture
from tests.support.node_fixtures import negative_series, node_in, positive_series, without_finding  # noqa: F401  fixtures
from tests.support.site import peer, site  # noqa: F401  fixtures
from tests.support.unmeasured import unmeasured  # noqa: F401  fixture
