"""The study of continual learning: tasks in sequence, by how many clocks a model has."""
