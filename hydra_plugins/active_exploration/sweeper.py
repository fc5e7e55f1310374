"""The sweeper `hydra/sweeper=active_exploration`, for any Hydra application whose task returns a number.

Hydra imports this module whenever it starts, so what a sweep needs is imported by the sweep. Of the project, the plugin
uses `stages.exploration` alone. Annotations are evaluated here, because Hydra executes the module outside of
`sys.modules`, where a dataclass cannot look names up later.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.active_exploration._search import Search

log = logging.getLogger(__name__)


@dataclass
class ActiveExplorationConfig:
    """What a sweep explores and how. `docs/exploration.md` describes every key."""

    _target_: str = "hydra_plugins.active_exploration.sweeper.ActiveExplorationSweeper"
    contexts: dict[str, Any] = field(default_factory=dict)  # key of the configuration: a sweep of Hydra's syntax
    actions: dict[str, Any] = field(default_factory=dict)  # the same; sweeps on the command line are added
    key_prefix: str = ""  # before the keys of contexts and actions in overrides; `++` for what the configuration lacks
    conditions: dict[str, dict[str, Any]] = field(default_factory=dict)  # key: {other key: values for which it is used}
    budget: int | None = None  # trials, those of a storage included
    batch: int = 1  # trials at once
    direction: str = "minimize"  # or maximize: what is wanted of the number that the task returns
    replicates: int = 1  # jobs of a trial, with the same configuration
    replicate_key: str | None = None  # gets 0, 1, ... in the replicates of a trial: a seed, for example
    failure_penalty: float = 1.0  # a failed trial counts as this many standard deviations worse than the worst success
    beta: float | None = None  # the width of the bounds in standard deviations; null: from theory
    beta_scale: float = 0.2  # of the theory's squared width
    confidence: float = 0.9  # of the theory
    initial: int | None = None  # trials before the first model; null: twice the number of parameters plus two
    max_contexts: int = 64  # compared with each other, where they are not a short list
    max_actions: int = 512
    policy: str = "last"  # the answer by the last lower bounds, or by the best of all rounds (best_round)
    seed: int = 0
    storage: str | None = None  # a file of finished trials, from which a sweep resumes
    output: str = "${hydra.sweep.dir}"  # the directory of the answer


ConfigStore.instance().store(
    group="hydra/sweeper", name="active_exploration", node=ActiveExplorationConfig, provider="active_exploration"
)
# For an application's own hydra/sweeper/active_exploration.yaml, which names this one in its defaults.
ConfigStore.instance().store(
    group="hydra/sweeper", name="active_exploration_schema", node=ActiveExplorationConfig, provider="active_exploration"
)


class ActiveExplorationSweeper(Sweeper):
    """Explores contexts and actions, and answers with a table: for each context, the best action found."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[dict[str, Any]]:
        """Run the trials. `arguments`: the overrides of the command line; those that sweep are actions or contexts.

        Returns the answer, a row for each context. Raises HydraException for a space that cannot be explored, and if no
        trial succeeded.
        """
        from hydra_plugins.active_exploration._answer import command, rows, table, write
        from hydra_plugins.active_exploration._search import Search

        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader

        def is_group(key: str) -> bool:
            return bool(loader.get_group_options(key.partition("@")[0]))

        search = Search.create(self.settings, arguments, is_group)
        while pending := search.next_batch():
            self._run(search, pending)
        found = rows(search)
        path = write(search, found, is_group)
        log.info(f"The best configuration of each context:\n{table(found)}")
        log.info(f"The answer is in {path}. A run with it:\n{command(path.parent, found[0]['config'], search.fixed)}")
        return found

    def _run(self, search: "Search", pending: Sequence[dict[str, Any]]) -> None:
        assert self.launcher is not None
        jobs = [job for configuration in pending for job in search.jobs(configuration)]
        results = self.launcher.launch(jobs, initial_job_idx=search.jobs_done)
        search.jobs_done += len(jobs)
        each = search.replicates
        for index, configuration in enumerate(pending):
            search.finish(configuration, results[index * each : (index + 1) * each])
            log.info(search.describe_last())
