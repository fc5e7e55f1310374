"""What can be measured in a text: pure functions that operations, and anything else, decide by."""
