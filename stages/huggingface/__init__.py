"""Models in the Hugging Face format: import, export, families of models, and the model card."""
