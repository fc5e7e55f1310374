"""The work: data and models. Knows neither Ray, nor MLflow, nor Hydra."""
