"""Nodes and studies; see `tests.node_fixtures`."""

from tests.certificates import certificates  # noqa: F401  fixtures
from tests.node_fixtures import negative_series, node_in, positive_series  # noqa: F401  fixtures
from tests.site import peer, site  # noqa: F401  fixtures
from tests.web_server import web  # noqa: F401  fixture
