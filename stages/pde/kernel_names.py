"""The names of kernels, which configurations use without importing PyTorch."""

from typing import Literal

KernelName = Literal["matern_5_2", "matern_7_2", "matern_9_2", "matern_11_2", "rbf"]
