"""The decoder: BLOOM's architecture, its experts, its quantized form and its key-value cache."""
