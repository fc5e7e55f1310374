"""Models in Hugging Face's form: which families there are, their configs, their tensors' names, their files."""
