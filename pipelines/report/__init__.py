"""One HTML page a run: what ran, why, what came out, and how to repeat it. Needs nothing but itself to be read."""
