"""The artifact types that several subjects read, and the samples of token datasets."""
