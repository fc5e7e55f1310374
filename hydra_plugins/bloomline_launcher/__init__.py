"""A launcher of Hydra that gives all jobs of a batch to the task at once."""
