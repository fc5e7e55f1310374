"""The engine: composes the configuration, plans, runs and records. Knows steps and artifacts, not what a stage does."""
