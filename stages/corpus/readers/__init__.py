"""Where documents come from: each reader a typed config, external content in parts, a stream of candidates."""
