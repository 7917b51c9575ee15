"""The rows of the list as HTML, rendered once for all pages that show them, and again when a row reads otherwise."""

import secrets
from collections.abc import Sequence
from datetime import datetime

from jinja2 import Environment
from markupsafe import Markup

from node.web import wording
from node.web.listing import shown_row
from storage.queries.worklist import Row

_MOST_ROWS = 1000


class RowTexts:
    """The rows of late.  Each page's key is filled in afterwards, in the place of a text that nobody can know."""

    def __init__(self) -> None:
        """None is rendered yet."""
        self._rendered: dict[int, tuple[Row, str, str, str]] = {}
        self._in_place_of_key = secrets.token_hex(32)

    def html(
        self, rows: Sequence[Row], deliveries: Sequence[str], now: datetime, form_key: str, env: Environment
    ) -> Markup:
        """The rows, one after the other.  `deliveries`: how each one's report stands on its way, "" where there is none."""
        if len(self._rendered) > _MOST_ROWS:
            self._rendered = {}
        texts = [self._of(row, delivery, now, env) for row, delivery in zip(rows, deliveries, strict=True)]
        return Markup("".join(texts).replace(self._in_place_of_key, form_key))  # noqa: S704  rendered with escaping

    def _of(self, row: Row, delivery: str, now: datetime, env: Environment) -> str:
        waiting = wording.waiting(row["last_instance_at"], now)
        known = self._rendered.get(row["case_id"])
        if known is not None and known[0] is row and known[1:3] == (delivery, waiting):
            return known[3]
        shown = shown_row(row, delivery, now)
        text = env.get_template("row.html").render(row=shown, form_key=self._in_place_of_key)
        self._rendered[row["case_id"]] = (row, delivery, waiting, text)
        return text
