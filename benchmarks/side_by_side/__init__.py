"""Several ways to start the same training, side by side: all started once, then trained by turns in short slices."""
