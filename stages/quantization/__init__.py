"""Quantization of trained models."""
