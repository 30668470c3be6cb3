"""How titles are searched: a file has one function of its name, which makes the index that the graph carries.

    name(catalogue, vectors, file) -> keras.layers.Layer

`catalogue` is the `Catalogue`, `vectors` a float32 array of shape `(titles, d)`, and `file` a path that the index may
write to, or `None`. The layer is called as `ExactIndex` is, and returns what it returns.
"""
