"""The gRPC edge: who calls, is the request sound, what does an error look like; calls for other workers."""
