"""Faults against real processes: what was acknowledged is neither lost nor doubled."""
