"""The launcher `hydra/launcher=bloomline`, which `bloomline run --multirun` uses.

Hydra's own launcher calls the task once for each job, one after the other. This one gives the task all jobs that a
sweeper launches together, so that they can share a cluster. Hydra imports this module whenever it starts.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass
class BloomlineLauncherConfig:
    """The launcher has no settings: `sweep.parallel` says how many jobs run at the same time."""

    _target_: str = "hydra_plugins.bloomline_launcher.launcher.BloomlineLauncher"


ConfigStore.instance().store(
    group="hydra/launcher", name="bloomline", node=BloomlineLauncherConfig, provider="bloomline_launcher"
)


class BloomlineLauncher(Launcher):
    """Composes the configuration of every job, then lets the task run them."""

    def __init__(self) -> None:
        self._context: HydraContext | None = None
        self._config: DictConfig | None = None
        self._task: Any = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._config, self._task = hydra_context, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs.

        A job without a value has failed, for a sweeper that compares. Hydra's own would end the sweep with it, so for
        that one every job has completed.
        """
        assert self._context is not None
        assert self._config is not None
        compares = self._config.hydra.sweeper._target_ != BASIC_SWEEPER
        setup_globals()
        before = copy.copy(HydraConfig.instance().cfg)
        try:
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                try:
                    config = self._context.config_loader.load_sweep_config(self._config, list(overrides))
                except (HydraException, OmegaConfBaseException) as error:
                    self._task.refuse(list(overrides), error)
                    continue
                with open_dict(config):
                    config.hydra.job.id, config.hydra.job.num = str(number), number
                HydraConfig.instance().set_config(config)
                self._task.add(list(config.hydra.overrides.task), config)
            values = self._task.run()
        finally:
            HydraConfig.instance().cfg = before
        returns = []
        for overrides, value in zip(job_overrides, values, strict=True):
            failed = value is None and compares
            returns.append(JobReturn(overrides=overrides, status=JobStatus.FAILED if failed else JobStatus.COMPLETED))
            returns[-1].return_value = RuntimeError("the job has no objective") if failed else value
        return returns
