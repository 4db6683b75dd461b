"""Finance's reports: the pure parts of them, and the files they come in."""
