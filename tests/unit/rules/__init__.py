"""From a draft to the tills: the pure parts of it."""
