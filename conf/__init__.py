"""Hydra configuration: values only, no logic."""
