"""One self-contained HTML page for each run: what ran, why, the results, and how to repeat the run."""
