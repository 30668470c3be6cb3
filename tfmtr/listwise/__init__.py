"""The order of lists: what is popular, what goes with a past, and a model's score, as one dot product."""
