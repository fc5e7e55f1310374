"""A Hydra sweeper that finds the best configuration for every context."""
