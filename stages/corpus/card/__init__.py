"""The data card of a corpus: its facts, charts and page."""
