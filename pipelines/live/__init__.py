"""The live page of `bloomline ui`: the runs of a store as they go on, from the store alone."""
