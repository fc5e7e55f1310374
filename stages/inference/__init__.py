"""Batched text generation with a key-value cache: one engine for a server's requests and for offline use.

`text` turns tokens into text, `sampling` turns logits into tokens, `batch` holds a model and its running sequences,
`engine` decides what runs at each step and reports it to an `observer`, and `generate` runs prompts to their end.
"""
