"""A project's own stage: how long it takes to read a folder of texts."""
