"""The command line's entry point: `bloomline`, and `python -m bloomline`.

The top-level packages of this project have common names, and a user's project may have a folder `pipelines/` on
PYTHONPATH. The name of this module is unlikely to be taken. It therefore sets the search path before any of those
packages is imported.
"""

# Both modules are a part of the interpreter. Nothing else may be imported before the search path is set.
import os
import sys


def main() -> None:
    # Python puts the working directory (`python -m bloomline`) or that of the script first. A file there would be
    # imported in place of the library that has its name.
    if not sys.flags.safe_path and os.path.isdir(sys.path[0] or os.curdir):
        del sys.path[0]
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    from pipelines import cli

    cli.main()


if __name__ == "__main__":
    main()
