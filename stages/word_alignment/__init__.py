"""Two languages, one space: word vectors, their alignment without a dictionary, and its evaluation."""
