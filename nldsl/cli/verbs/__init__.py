"""One file for each verb: a handler that takes plain values, and the click command in front of it."""
