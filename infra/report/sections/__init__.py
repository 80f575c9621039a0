"""The sections of the report, in the order of the page.

A section is a module here with `TITLE` (empty: it has no entry in the navigation) and `read(sources)`, which returns
what its template of the same name is given, or None where it has nothing to stand for; it appears by its name in this
list. What it shows of a system comes from the tables alone: a new system needs no section of its own to be seen.
"""

SECTIONS = (
    "totals",
    "quality",
    "catalogue",
    "failures",
    "models",
    "stage_gates",
    "recommendations",
    "lists",
    "judge",
    "trigger_queries",
    "market",
    "promotions",
    "landing",
    "links",
)
