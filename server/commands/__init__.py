"""Every sub-command of `tallypoint`: what people type, read and load."""
