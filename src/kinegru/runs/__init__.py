"""A training run and its folder: one model a fold, tested once, with a report; what decides it, and where it stands."""
