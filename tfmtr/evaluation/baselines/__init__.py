"""What people already have: rankings without a trained tower, fitted on the events before a moment.

A baseline is a function of a `History` that returns scores of all titles for some users. It sees what a model may see,
and nothing else: whoever makes the history decides. A user who was not fitted is folded in by the user's own past.
"""
