"""Names the extra that brings a missing module. The table is the package's own metadata, which pip reads too."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires

PACKAGE = "bloomline"
CONTRIBUTORS = {"bench", "dev"}  # extras that bring nothing to a stage
# The modules of distributions that are not named like them.
MODULES = {
    "faiss_cpu": "faiss",
    "hydra_core": "hydra",
    "phonenumberslite": "phonenumbers",
    "pillow": "PIL",
    "pot": "ot",
    "pyro_ppl": "pyro",
    "pyyaml": "yaml",
    "python_stdnum": "stdnum",
}
REQUIREMENT = re.compile(r"""(?P<name>[\w.-]+)[^;]*(;.*\bextra\s*==\s*["'](?P<extra>[\w.-]+)["'])?""")


def missing_extra(error: BaseException) -> str | None:
    """The refusal that names the missing module and the command that installs it.

    None for any other error, and for a module that none of our extras lists. A distribution is expected to be in
    `MODULES`, or to be named like its module apart from case and hyphens; a test checks that of all in our extras.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    command = install_command(module)
    return command and f"The Python module {module!r} is not installed. Install it with: {command}"


def install_command(module: str) -> str | None:
    """The command that installs the smallest extra with a top-level module; None if no extra of ours lists it."""
    extras = modules_by_extra()
    brings = {extra: modules for extra, modules in extras.items() if extra not in CONTRIBUTORS and module in modules}
    # An extra that includes a smaller one with the module (`all`, say) brings more than is needed.
    smallest = [name for name, modules in brings.items() if not any(other < modules for other in brings.values())]
    if not smallest or "" in brings:
        return None
    return " or ".join(f"pip install '{PACKAGE}[{extra}]'" for extra in smallest)


def modules_by_extra() -> dict[str, set[str]]:
    """The modules that each extra brings; "" names those of a plain installation."""
    try:
        requirements = requires(PACKAGE) or []
    except PackageNotFoundError:  # run from a source tree that was never installed
        requirements = []
    found: dict[str, set[str]] = defaultdict(set)
    for line in requirements:
        if requirement := REQUIREMENT.match(line):
            module = requirement["name"].lower().replace("-", "_").replace(".", "_")
            found[(requirement["extra"] or "").replace("-", "_")].add(MODULES.get(module, module))
    return found
