"""A search over a recipe's values, judged by validation users in training windows: `tfmtr tune`."""
