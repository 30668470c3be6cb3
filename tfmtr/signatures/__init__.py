"""What an export can be asked: a file has one function of its name, which makes the signature of that name.

    name(served, *, part, ...) -> Signature

`served` is a `Served`: the schema, the run's id and the raw inputs. A signature says what it needs by its keywords, a
closed set of parts of the export:

* `user`: the Keras model from the user's raw inputs to `{task: query of shape (batch, d)}`;
* `title`: the one from a title's raw inputs to vectors of shape `(batch, d)`;
* `scenario`: the one from the user's raw inputs to the row's scenario, of shape `(batch, 1)`, 0 where it is unknown;
* `score`: the one from all raw inputs to `{name: probability of shape (batch, 1)}`, calibrated if the run is;
  that of the ranking model where there is one;
* `recommender`: the `Recommender` over the index of titles;
* `ranker`: the `SecondStage`, where a ranking model is exported with the index.

An export that lacks one leaves the signature out. Every file here is in every export, and so is what an installed
package has in the entry points `tfmtr.signatures`.
"""

from tfmtr.signatures._signature import Served, Signature, specs

__all__ = ["Served", "Signature", "specs"]
