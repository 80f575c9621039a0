"""A process of dbt: parse the project once, then build it, then write its static docs. Exit code 1 where dbt says no.

`infra.dbt` starts it: dbt reads its paths from the environment, and keeps its database open while it lives.
"""

from __future__ import annotations

import sys

from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

_COMMANDS = (("build",), ("docs", "generate", "--static"))


def main() -> int:
    """Run the commands with the options of this process's command line, until one fails; dbt tells all itself."""
    options = sys.argv[1:]
    parsed = dbtRunner().invoke(["parse", *options])
    if not isinstance(parsed.result, Manifest):
        return 1
    runner = dbtRunner(manifest=parsed.result)
    return 0 if all(runner.invoke([*command, *options]).success for command in _COMMANDS) else 1


if __name__ == "__main__":
    sys.exit(main())
