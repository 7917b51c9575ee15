"""See `tests.support.command_line`."""

from tests.support.command_line import bundle, config, run, store  # noqa: F401  fixtures
