"""Everything that touches Ray: sessions, step tasks, gangs, Serve and job submission."""
