"""Active exploration: the best action for every context or state, found with few evaluations."""
