"""Nodes and studies; see `tests.support.node_fixtures`."""

from tests.integration.web_pages import pages, quick  # noqa: F401  fixtures
from tests.support.certificates import certificates  # noqa: F401  fixtures
from tests.support.node_fixtures import negative_series, node_in, positive_series, without_finding  # noqa: F401  fixtures
from tests.support.receiving import port, start  # noqa: F401  fixtures
from tests.support.site import peer, site  # noqa: F401  fixtures
from tests.support.unmeasured import unmeasured_children  # noqa: F401  fixture
from tests.support.web_server import web  # noqa: F401  fixture
