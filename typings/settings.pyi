# What every generated `settings.py` offers to the runtime's files beside it.

from schedule import Settings

SETTINGS: Settings
