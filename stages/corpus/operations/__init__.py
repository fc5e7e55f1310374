"""What can be done to one document: each operation a typed config and a pure function, all alike."""
