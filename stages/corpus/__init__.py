"""Ingesting documents: readers, filters, deduplication, the split into training and validation."""
