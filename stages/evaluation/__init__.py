"""What evaluation measures: likelihoods, the baselines on the same bytes, completions."""
