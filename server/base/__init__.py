"""What everything above stands on: settings, clock, errors, databases. Knows nothing of loyalty."""
