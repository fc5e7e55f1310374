"""Communication between the ranks of a gang."""
