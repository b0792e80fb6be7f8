"""The files that every build folder holds besides its generated model.

They are written for the folder: they import torch, the standard library and each other by
plain names (`from schedule import Settings`), never nldsl.  `nldsl compile` copies `FILES` as they are, and
takes what the rules of a run need from `rules.py`.
"""

FILES = (
    "schedule.py",
    "tokens.py",
    "data.py",
    "items.py",
    "tasks.py",
    "finite.py",
    "checkpoint.py",
    "pretrained.py",
    "assign.py",
    "starts.py",
    "growth.py",
    "learners.py",
    "values.py",
    "plastic.py",
    "streams.py",
    "generate.py",
    "measures.py",
    "documents.py",
    "learning.py",
    "divergence.py",
    "session.py",
    "loop.py",
    "plan.py",
    "amend.py",
    "train.py",
)
