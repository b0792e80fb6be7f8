"""From a checked spec to a plan: which engine serves each memory, by its algebra."""
