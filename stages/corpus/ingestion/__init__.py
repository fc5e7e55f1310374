"""The passes of an ingestion: read, decide, write; their intermediate files."""
