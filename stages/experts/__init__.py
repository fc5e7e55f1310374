"""Mixtures of experts: the conversion of a dense model, statistics of the load of experts, and the moe stage."""
