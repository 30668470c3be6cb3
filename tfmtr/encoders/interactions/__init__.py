"""What happens to a ranking model's features before sharing: a file has one function of its name.

    name(x, fields, **options) -> tensor of shape (batch, width)

`x` is all features side by side, `fields` the embeddings of the categorical ones, `{feature: (batch, embedding_dim)}`.
"""
