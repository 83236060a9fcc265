"""The shared backbone: one checkpoint, loaded and run, with nothing of any framework in it."""
