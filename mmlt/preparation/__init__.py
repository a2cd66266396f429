"""Before a training: one's own pictures, checks of downloads, a config to start with."""
