"""Evaluation of a model on held-out text.

`evaluate` is the stage, `likelihood` the model's loss of each document, `compression` and `ngram` the baselines on the
same bytes, `completions` the model's continuations of prompts, and `figures` the charts.
"""
