"""What the tokenizer and tokens stages share: mixing proportions and fertility."""
