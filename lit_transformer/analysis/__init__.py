"""Looking into networks: what they attend to, and what their masks let them see."""
