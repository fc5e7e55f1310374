"""The decoder language model: architectures, experts, quantized layers, key-value cache, weights in files."""
