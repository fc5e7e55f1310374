"""Serving a Checkpoint: a generation engine with continuous batching, and the HTTP application around it.

`text` turns tokens into text that may be shown, `sampling` turns logits into tokens, `batch` holds the model and its
running sequences, `engine` decides what runs at each step, `protocol` is the shape of requests and answers, `metrics`
what is measured, and `http` the application. None of it knows Ray.
"""
