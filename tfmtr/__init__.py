"""tfmtr: joint recommender models for many territories, scenarios and tasks.

Importing this package imports no TensorFlow; each submodule brings what it needs.
"""

__version__ = "0.1.0"
