"""How several losses make one update: one paper, one file, one function that returns a `Balancer`.

A file `name.py` has one function `name(problem, ...options) -> Balancer`; the file's name is its only registration.
Files that begin with `_` are shared pieces.
"""

from tfmtr.balancing._balancer import Balancer, Problem, check_positive, check_range, check_two

__all__ = ["Balancer", "Problem", "check_positive", "check_range", "check_two"]
