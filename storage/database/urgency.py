"""How urgent a series is, in SQL: what the computed columns `priority` and `p_absent` hold.  A new rule gets a migration."""

PRIORITY = """CASE
    WHEN outcome = 'positive' THEN 1
    WHEN outcome = 'not_analysed' THEN 2
    WHEN stage IN ('receiving', 'ready', 'analysing') THEN 3
    WHEN outcome = 'negative' THEN 4
    ELSE 5
END"""
"""As the view `worklist` has it."""
P_ABSENT = "1.0 - COALESCE(p_present, 0.0)"
