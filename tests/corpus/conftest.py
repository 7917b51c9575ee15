"""What these tests are about is measured elsewhere, or not at all; see `tests.support.unmeasured`."""

from tests.support.unmeasured import unmeasured  # noqa: F401  fixture
