"""The doctor's round: every check, bounded in time, and what it found as lines of the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from cluster.terminal_text import clean_line, say
from pipelines.doctor import cluster_check, installation, store_check, tracking_check
from pipelines.doctor.finding import Check, Finding, within
from pipelines.redaction import redacted

if TYPE_CHECKING:
    from pipelines.config import Settings

MARKS = {"ok": "ok", "warning": "note", "failed": "FAILED"}
TIMEOUT_S = 60.0  # of a store or a tracking server
INSTALLATION_TIMEOUT_S = 900.0  # of all imports, each of which has its own, shorter one


def examine(settings: Settings) -> int:
    """Check everything that a run of this configuration needs, and print it. Returns 1 if something fails, else 0."""
    store, tracking = settings.store, settings.tracking
    experiment = tracking.experiment or settings.name
    places = {"the store": store.state} if store.state_directory is None else {"state": store.state}
    rounds: list[tuple[str, list[tuple[float, str, Check, str]]]] = [
        (
            "installation",
            [
                (TIMEOUT_S, "Python", installation.check_python, "Install bloomline with pip."),
                (INSTALLATION_TIMEOUT_S, "the extras", installation.check_extras, "Install bloomline again."),
                (TIMEOUT_S, "this machine", partial(installation.check_machine, settings.cluster), ""),
                (TIMEOUT_S, "disks", partial(installation.check_space, places), "Check the mounts of this machine."),
            ],
        ),
        (
            "cluster",
            [
                (
                    2 * cluster_check.TIMEOUT_S,
                    "the cluster",
                    partial(cluster_check.check_cluster, settings.cluster, store.state),
                    cluster_check.EXPECTED,
                )
            ],
        ),
        (
            "store",
            [
                (
                    TIMEOUT_S,
                    f"store {store.root}",
                    partial(store_check.check_store, store),
                    "Check store.root, store.options and the network.",
                )
            ],
        ),
        (
            "tracking",
            [
                (
                    TIMEOUT_S,
                    f"tracking {tracking.shown(store.state)}",
                    partial(tracking_check.check_tracking, tracking, store.state, experiment),
                    "Check tracking.uri and the network.",
                )
            ],
        ),
    ]
    found: list[Finding] = []
    for title, checks in rounds:
        say(title, flush=True)
        for check in checks:
            found += _shown(within(*check))
    failed = sum(finding.state == "failed" for finding in found)
    noted = sum(finding.state == "warning" for finding in found)
    notes = f" {noted} note{'s' if noted > 1 else ''}." if noted else ""
    say(f"\n{f'{failed} of {len(found)} checks failed.' if failed else 'Nothing fails.'}{notes}")
    return 1 if failed else 0


def _shown(findings: Iterable[Finding]) -> list[Finding]:
    findings = list(findings)
    for one in findings:
        say(f"  {MARKS[one.state]:<7} {clean_line(redacted(one.text))}", flush=True)
        if one.remedy and one.state != "ok":
            say(f"          -> {clean_line(redacted(one.remedy))}", flush=True)
    return findings
