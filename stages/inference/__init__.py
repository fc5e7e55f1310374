"""The inference engine: batched generation with a key-value cache."""
