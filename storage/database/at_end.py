"""The triggers that keep the table `at_end`, in the words of either database: what each counts, and how.

They are history as the migrations are: what changes here needs one.
"""

ENDS = {"series": ("reported", "set_aside", "failed"), "delivery": ("delivered", "committed", "dead")}
"""The stages of each table in which rows stay; what is in another one is few, and counted when it is asked for."""
_CHANGES = {"insert": ("NEW",), "update": ("OLD", "NEW"), "delete": ("OLD",)}
"""What each statement has a row of: as it was, and as it is."""
_ADDED = {"OLD": -1, "NEW": 1}


def triggers(kind: str) -> list[str]:
    """The statements that make them: each row that reaches an end, or leaves one, has a row of +1 or -1."""
    return [made for table in ENDS for change in _CHANGES for made in _trigger(kind, table, change)]


def no_triggers(kind: str) -> list[str]:
    """The statements that take them away."""
    if kind == "sqlite":
        return [f"DROP TRIGGER {_name(table, change)}" for table in ENDS for change in _CHANGES]
    return [f"DROP FUNCTION {_name(table, change)} CASCADE" for table in ENDS for change in _CHANGES]


def counted() -> str:
    """The statement that counts all that stand at an end now."""
    some = " UNION ALL ".join(
        f"SELECT '{table}' AS what, stage, COUNT(*) AS number FROM {table} WHERE {_is_at_end(table)} GROUP BY stage"  # noqa: S608
        for table in ENDS
    )
    return f"INSERT INTO at_end (what, stage, number) {some}"


def _trigger(kind: str, table: str, change: str) -> list[str]:
    rows, name = _CHANGES[change], _name(table, change)
    when = " OR ".join(_is_at_end(table, f"{row}.") for row in rows)
    if change == "update":
        when = f"OLD.stage <> NEW.stage AND ({when})"
    body = " ".join(
        f"INSERT INTO at_end (what, stage, number) SELECT '{table}', {row}.stage, {_ADDED[row]} "
        f"WHERE {_is_at_end(table, f'{row}.')};"
        for row in rows
    )
    of = "UPDATE OF stage" if change == "update" else change.upper()
    if kind == "sqlite":
        return [f"CREATE TRIGGER {name} AFTER {of} ON {table} WHEN {when} BEGIN {body} END"]
    function = f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT"
    return [
        f"{function} AS $$ BEGIN {body} RETURN NULL; END $$",
        f"CREATE TRIGGER {name} AFTER {of} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()",
    ]


def _name(table: str, change: str) -> str:
    return f"count_{table}_{change}"


def _is_at_end(table: str, row: str = "") -> str:
    stages = ", ".join(f"'{stage}'" for stage in ENDS[table])
    nobodys = f"NOT {row}canary AND " if table == "series" else ""
    return f"{nobodys}{row}stage IN ({stages})"
