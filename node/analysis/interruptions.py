"""Why an analysis that has begun is broken off, and how soon after there is a reason."""

LOOK_SECONDS = 0.2
"""Between two looks at whether there is one."""


class StopRequested(Exception):
    """The worker was asked to stop."""


class GivesWay(Exception):
    """What is in work is a canary or is not due yet, and a patient's series waits."""
