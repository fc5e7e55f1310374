"""Entity alignment of two multi-modal knowledge graphs: readers, MEAformer and its rivals, evaluation, serving."""
