"""What the processes of a run printed: collected while it runs, kept in the store, shown by `bloomline logs`."""
