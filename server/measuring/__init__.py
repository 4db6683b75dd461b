"""What SREs look at: metrics, logs, traces, and when a call was where."""
