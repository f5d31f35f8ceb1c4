"""Looking at models: how they are put together, what they do with a recording, and where the time goes."""
