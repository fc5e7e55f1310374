"""Readers: typed configs that name external content and read it as a stream of candidates."""
