"""Service ranges on their way out: when the last address only they cover is gone, they may go."""
