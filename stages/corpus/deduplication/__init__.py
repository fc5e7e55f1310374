"""Which documents are copies of others: decided over the whole corpus, from what is known of each."""
