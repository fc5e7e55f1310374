"""Sweeps: the jobs of one `--multirun`, side by side on one cluster, and how they compare."""
