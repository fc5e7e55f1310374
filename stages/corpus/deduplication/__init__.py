"""Deduplication: rules that find copies over the whole corpus."""
