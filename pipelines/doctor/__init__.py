"""`bloomline doctor`: checks an installation, a cluster, a store and a tracking server, and says what to do."""
