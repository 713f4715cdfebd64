"""The playground: one local page on which two agents learn from your ratings and from simulated users."""
