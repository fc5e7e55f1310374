"""The typed artifacts that flow between steps. Each opens its own files and knows its own checks."""
