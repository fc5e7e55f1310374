"""The command line's entry point: `bloomline`, and `python -m bloomline`.

The top-level packages of this project have common names, and a user's project may have a folder `pipelines/` on
PYTHONPATH. The name of this module is unlikely to be taken. It therefore sets the search path before any of those
packages is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from pipelines import cli

    cli.main()


if __name__ == "__main__":
    main()
