"""Communication between ranks, shared by training and inference."""
