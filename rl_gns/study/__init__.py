"""The verbs: a file for each, from `train` and `sweep` to `doctor` and `verify-resume`."""
