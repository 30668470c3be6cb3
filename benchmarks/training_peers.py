"""One model of one library in a process of its own, for `training.py`: trains a turn for each line that it reads.

    work='{"library": "ours_branches", "case": "4", "batch_size": 8192, "dtype": "float32"}'
    python benchmarks/training_peers.py "$work"

Answers a line of JSON for its start (seconds to the first step, parameters) and for each turn (seconds), and at the end
of its input the peak of its memory. A library's function takes a case and a batch size and returns the number of
parameters and `train(batches)`, which trains on some batches through the library's own loop.
"""

import contextlib
import json
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

USER, TITLE, UNITS = 512, 800, 512  # widths of the two-tower model
EMBEDDING, TOWER = 16, 64
EXPERTS, EXPERT = 4, (256, 128)
BATCHES = 4  # different ones
FIELDS = {  # values of MovieLens-1M's ids, as in the M3oE study
    "user": 6040,
    "movie": 3883,
    "gender": 2,
    "occupation": 21,
    "zip": 10,
    "genre": 18,
    "domain": 3,
}
TASKS = ("click", "like")
STAR, COMMON, EXPERT_UNITS = 512, 256, 64  # of M3oE
TITLES, PAST, DRAWN = 20_000, 50, 20  # of retrieval: titles, those of a past, and YouTubeDNN's negatives of a row
WIDTH, VECTOR = 64, 128  # embeddings of its titles; vectors of users and of titles


def vectors(groups, batch_size, user=USER, title=TITLE):
    """Batches for a two-tower model: vectors of these widths, groups from 1, labels."""
    rng = np.random.default_rng(0)
    return [
        {
            "user_vector": rng.normal(size=(batch_size, user)).astype("float32"),
            "title_vector": rng.normal(size=(batch_size, title)).astype("float32"),
            "scenario": rng.integers(1, groups + 1, batch_size, dtype="int32"),
            "label": rng.integers(0, 2, batch_size).astype("float32"),
        }
        for _ in range(BATCHES)
    ]


def ids(batch_size):
    """Batches of ids from 1 and of two labels."""
    rng = np.random.default_rng(0)
    return [
        {name: rng.integers(1, count + 1, batch_size, dtype="int32") for name, count in FIELDS.items()}
        | {task: rng.integers(0, 2, batch_size).astype("float32") for task in TASKS}
        for _ in range(BATCHES)
    ]


def keras_fit(model, batches, labels):
    """`train(count)` through `fit` of Keras 3 or of its predecessor, on batches that are tensors already."""
    import tensorflow as tf

    from tfmtr import inputs

    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    x = {name: value for name, value in stacked.items() if name not in labels}
    y = {name: stacked[name] for name in labels}
    data = inputs.without_autotune(tf.data.Dataset.from_tensor_slices((x, y)).repeat().prefetch(2))
    return lambda count: model.fit(data, epochs=1, steps_per_epoch=count, verbose=0)


def ours_branches(case, batch_size):
    """`models.two_tower` with routed branches."""
    return ours_towers(int(case), batch_size, USER, TITLE)


def ours_retrieval(case, batch_size):
    """The two-tower model that `tfmtr train` makes by default, of vectors of a user's past and of titles' texts."""
    return ours_towers(int(case), batch_size, VECTOR, VECTOR)


def ours_towers(groups, batch_size, user, title):
    """`models.two_tower` with routed branches, of vectors of the widths `user` and `title`."""
    import keras

    from tfmtr.models import two_tower
    from tfmtr.schema import Feature, Scenario, Schema, Task

    features = [
        Feature("user_vector", "user", "vector", width=user),
        Feature("title_vector", "title", "vector", width=title),
    ]
    territories = {(f"t{i}",): f"group_{i:02}" for i in range(groups)}
    schema = Schema(features, [Task("label")], Scenario(["territory"], territories))
    model = two_tower(schema, share="territory_branches", units=(UNITS, UNITS), unknown_rate=0.0)
    model.compile(keras.optimizers.Adam(1e-3))
    return model.count_params(), keras_fit(model, vectors(groups, batch_size, user, title), ("label",))


def masked_towers(keras, groups):
    """The same two-tower model in Keras layers, version 2 or 3, all branches computed and masked."""
    layers = keras.layers
    user = user_input = keras.Input((USER,), name="user_vector")
    title = title_input = keras.Input((TITLE,), name="title_vector")
    scenario = keras.Input((), dtype="int32", name="scenario")
    for _ in range(2):
        user = layers.ReLU()(layers.BatchNormalization()(layers.Dense(UNITS)(user)))
    title = layers.ReLU()(layers.BatchNormalization()(layers.Dense(UNITS)(title)))
    title = layers.Dense(UNITS)(title)
    branches = []
    for i in range(1, groups + 1):
        mask = layers.Lambda(lambda group, i=i: one_if(group, i), output_shape=(1,))(scenario)
        branches.append(layers.Multiply()([layers.Dense(UNITS)(user), mask]))
    product = layers.Dot(axes=1)([layers.Add()(branches) if groups > 1 else branches[0], title])
    output = layers.Dense(1, activation="sigmoid")(product)
    return keras.Model(
        {"user_vector": user_input, "title_vector": title_input, "scenario": scenario}, {"label": output}
    )


def one_if(group, i):
    """1 where a row is of group i, shape `(batch, 1)`."""
    import tensorflow as tf

    return tf.cast(tf.equal(group, i), "float32")[:, None]


def keras_branches(case, batch_size):
    """Plain Keras 3."""
    import keras

    model = masked_towers(keras, int(case))
    model.compile(keras.optimizers.Adam(1e-3), loss={"label": "binary_crossentropy"}, jit_compile=False)
    return model.count_params(), keras_fit(model, vectors(int(case), batch_size), ("label",))


def tfrs_branches(case, batch_size):
    """TensorFlow Recommenders' model and ranking task, with the Keras of TensorFlow before 2.16."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_recommenders as tfrs
    import tf_keras

    class Model(tfrs.Model):
        def __init__(self):
            super().__init__()
            self.towers = masked_towers(tf_keras, int(case))
            self.task = tfrs.tasks.Ranking(loss=tf_keras.losses.BinaryCrossentropy())

        def compute_loss(self, inputs, training=False):
            x, y = inputs
            return self.task(labels=y["label"], predictions=self.towers(x, training=training)["label"][:, 0])

    model = Model()
    model.compile(tf_keras.optimizers.Adam(1e-3))
    return model.towers.count_params(), keras_fit(model, vectors(int(case), batch_size), ("label",))


def id_schema():
    """The `Schema` of the ids."""
    from tfmtr.schema import Feature, Scenario, Schema, Task

    roles = dict.fromkeys(FIELDS, "user") | {"movie": "title", "genre": "title", "domain": "context"}
    features = [Feature(name, roles[name], "id", list(map(str, range(count)))) for name, count in FIELDS.items()]
    domains = {(str(i),): f"domain_{i}" for i in range(FIELDS["domain"])}
    return Schema(features, [Task(task) for task in TASKS], Scenario(["domain"], domains))


def ours_ids(share, batch_size):
    """`models.ranking` with a sharing function."""
    import keras

    from tfmtr.models import ranking

    model = ranking(id_schema(), share=share, embedding_dim=EMBEDDING)
    is_compiled = all(layer.supports_jit for layer in model.layers)  # not where rows are routed
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=is_compiled)
    batches = [{**batch, "scenario": batch["domain"]} for batch in ids(batch_size)]
    return model.count_params(), keras_fit(model, batches, TASKS)


def ours_multi_task(case, batch_size):
    """Shared bottom, MMoE or PLE of this package, with layer normalisation where the peers have batch normalisation."""
    import functools

    from tfmtr import components

    sizes = {"units": EXPERT, "tower_units": (TOWER,), "normalize": True}
    if case == "mmoe":
        sizes["num_experts"] = EXPERTS
    if case == "ple":
        sizes |= {"num_experts": 1, "num_shared_experts": 1}
    return ours_ids(functools.partial(components.find("sharing", case), **sizes), batch_size)


def rechub_multi_task(case, batch_size):
    """torch-rechub."""
    import torch
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom
    from torch_rechub.trainers import MTLTrainer

    features = [SparseFeature(name, vocab_size=count + 1, embed_dim=EMBEDDING) for name, count in FIELDS.items()]
    kinds, towers = ["classification"] * len(TASKS), [{"dims": [TOWER]}] * len(TASKS)
    experts = {"dims": list(EXPERT), "activation": "relu", "dropout": 0.0}
    model = {
        "shared_bottom": lambda: SharedBottom(features, kinds, experts, towers),
        "mmoe": lambda: MMOE(features, kinds, EXPERTS, experts, towers),
        # A level of this package has one layer an expert, one of theirs as many as are asked for.
        "ple": lambda: PLE(features, kinds, 2, 1, 1, {**experts, "dims": [EXPERT[0]]}, towers),
    }[case]()
    trainer = MTLTrainer(model, kinds, optimizer_params={"lr": 1e-3})
    batches = [
        (
            {name: torch.from_numpy(batch[name]).long() for name in FIELDS},
            torch.from_numpy(np.stack([batch[task] for task in TASKS], axis=1)),
        )
        for batch in ids(batch_size)
    ]

    def train(count):
        trainer.train_one_epoch([batches[i % BATCHES] for i in range(count)])

    return sum(weight.numel() for weight in model.parameters()), train


def deepctr_multi_task(case, batch_size):
    """DeepCTR, which needs the Keras of TensorFlow before 2.16."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    from deepctr.feature_column import SparseFeat
    from deepctr.models import MMOE, PLE, SharedBottom

    columns = [SparseFeat(name, count + 1, embedding_dim=EMBEDDING) for name, count in FIELDS.items()]
    options = {"tower_dnn_hidden_units": (TOWER,), "dnn_use_bn": True, "l2_reg_embedding": 0, "task_names": TASKS}
    model = {
        "shared_bottom": lambda: SharedBottom(columns, bottom_dnn_hidden_units=EXPERT, **options),
        "mmoe": lambda: MMOE(columns, num_experts=EXPERTS, expert_dnn_hidden_units=EXPERT, **options),
        "ple": lambda: PLE(columns, expert_dnn_hidden_units=EXPERT[:1], **options),
    }[case]()
    model.compile("adam", loss=["binary_crossentropy"] * len(TASKS))
    return model.count_params(), keras_fit(model, ids(batch_size), TASKS)


def ours_m3oe(case, batch_size):
    """M3oE of this package."""
    return ours_ids("m3oe", batch_size)


def torch_m3oe(case, batch_size):
    """M3oE of the same layers in PyTorch, in float32 or under automatic mixed precision."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    domains, tasks = FIELDS["domain"], len(TASKS)

    class Experts(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(COMMON, EXPERT_UNITS), nn.LayerNorm(EXPERT_UNITS), nn.ReLU())
                for _ in range(number)
            )

        def forward(self, h):
            return torch.stack([layer(h) for layer in self.layers], dim=1)

    def own_and_others(experts, beta):
        others = (experts.sum(dim=1, keepdim=True) - experts) / (experts.shape[1] - 1)
        return beta[:, None] * experts + (1 - beta[:, None]) * others

    class M3oE(nn.Module):
        def __init__(self):
            super().__init__()
            width = EMBEDDING * len(FIELDS)
            self.tables = nn.ModuleDict({name: nn.Embedding(count + 1, EMBEDDING) for name, count in FIELDS.items()})
            self.kernel = nn.Parameter(torch.randn(width, STAR) / width**0.5)
            self.own_kernels = nn.Parameter(1 + 0.02 * torch.randn(domains, width, STAR))
            self.star_bias, self.star_biases = nn.Parameter(torch.zeros(STAR)), nn.Parameter(torch.zeros(domains, STAR))
            self.common = nn.Linear(STAR, COMMON)
            self.agnostic = nn.Sequential(
                *(nn.Linear(width, STAR), nn.LayerNorm(STAR), nn.ReLU()),
                *(nn.Linear(STAR, COMMON), nn.LayerNorm(COMMON), nn.ReLU()),
            )
            self.shared, self.of_domain, self.of_task = Experts(EXPERTS), Experts(domains), Experts(tasks)
            self.gates = nn.ModuleList(nn.Linear(COMMON, tasks * EXPERTS) for _ in range(domains))
            self.alpha_d, self.beta_d = (nn.Parameter(torch.full((domains,), 0.5)) for _ in range(2))
            self.alpha_t, self.beta_t = (nn.Parameter(torch.full((tasks,), 0.5)) for _ in range(2))
            self.towers = nn.ModuleList(nn.Linear(EXPERT_UNITS, TOWER) for _ in range(domains * tasks))
            self.outputs = nn.ModuleList(nn.Linear(TOWER, 1) for _ in range(domains * tasks))

        def forward(self, x):
            domain = x["domain"] - 1
            e = torch.cat([self.tables[name](x[name]) for name in FIELDS], dim=1)
            masks = F.one_hot(domain, domains).to(e.dtype)
            star = sum(
                masks[:, d : d + 1] * (e @ (self.own_kernels[d] * self.kernel) + self.star_biases[d])
                for d in range(domains)
            )
            h = self.common(star + self.star_bias) + self.agnostic(e)
            gates = torch.stack([gate(h) for gate in self.gates], dim=1)[torch.arange(len(domain)), domain]
            gates = gates.view(-1, tasks, EXPERTS).softmax(dim=-1)
            shared = torch.einsum("bte,beu->btu", gates, self.shared(h))
            of_domain = self.alpha_d[:, None] * own_and_others(self.of_domain(h), self.beta_d)
            of_domain = of_domain[torch.arange(len(domain)), domain][:, None]
            of_task = self.alpha_t[:, None] * own_and_others(self.of_task(h), self.beta_t)
            u, logits = shared + of_domain + of_task, []
            for t in range(tasks):
                every = [
                    self.outputs[d * tasks + t](F.relu(self.towers[d * tasks + t](u[:, t]))) for d in range(domains)
                ]
                logits.append((torch.cat(every, dim=1) * masks).sum(dim=1))
            return torch.stack(logits, dim=1)

    model = M3oE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batches = [
        (
            {name: torch.from_numpy(batch[name]).long() for name in FIELDS},
            torch.from_numpy(np.stack([batch[task] for task in TASKS], axis=1)),
        )
        for batch in ids(batch_size)
    ]

    def train(count):
        for i in range(count):
            x, y = batches[i % BATCHES]
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=case == "bfloat16"):
                logits = model(x)
            loss = sum(F.binary_cross_entropy_with_logits(logits[:, t].float(), y[:, t]) for t in range(tasks))
            loss.backward()
            optimizer.step()

    return sum(weight.numel() for weight in model.parameters()), train


def rechub_retrieval(model, mode, batches, criterion=None):
    """The number of parameters of a model of torch-rechub, and `train(count)` through its `MatchTrainer`."""
    import torch
    from torch_rechub.trainers import MatchTrainer

    trainer = MatchTrainer(model, mode, optimizer_params={"lr": 1e-3})
    trainer.criterion = criterion or trainer.criterion
    labels = torch.zeros(len(next(iter(batches[0].values()))))

    def train(count):
        trainer.train_one_epoch([(batches[i % BATCHES], labels) for i in range(count)])

    return sum(weight.numel() for weight in model.parameters()), train


def titles_drawn(batch_size, **widths):
    """Batches of title ids from 1, for torch: `widths` of them a row."""
    import torch

    rng = np.random.default_rng(0)
    return [
        {name: torch.from_numpy(rng.integers(1, TITLES + 1, (batch_size, width))) for name, width in widths.items()}
        for _ in range(BATCHES)
    ]


def rechub_youtube_dnn(case, batch_size):
    """YouTubeDNN of torch-rechub: the mean of a past, two layers, a softmax over a title and some drawn ones."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.matching import YoutubeDNN

    title = SparseFeature("title", vocab_size=TITLES + 1, embed_dim=WIDTH)
    sequence = {"vocab_size": TITLES + 1, "embed_dim": WIDTH, "shared_with": "title"}
    past = SequenceFeature("past", pooling="mean", **sequence)
    drawn = SequenceFeature("drawn", pooling="concat", **sequence)
    batches = titles_drawn(batch_size, past=PAST, title=1, drawn=DRAWN)
    batches = [{**batch, "title": batch["title"][:, 0]} for batch in batches]
    return rechub_retrieval(YoutubeDNN([past], [title], [drawn], {"dims": [UNITS, WIDTH]}), 2, batches)


def rechub_sasrec(case, batch_size):
    """SASRec of torch-rechub: two blocks over a past, every place of which is a target; a row is a past."""
    from torch_rechub.basic.features import SequenceFeature
    from torch_rechub.basic.loss_func import BPRLoss
    from torch_rechub.models.matching import SASRec

    sequence = {"vocab_size": TITLES + 1, "embed_dim": WIDTH, "pooling": "concat"}
    features = [
        SequenceFeature("seq", **sequence),
        *(SequenceFeature(name, **sequence, shared_with="seq") for name in ("positive", "negative")),
    ]
    batches = titles_drawn(batch_size, seq=PAST, positive=PAST, negative=PAST)
    of_pairs = BPRLoss()  # takes one column of logits
    loss = lambda positive, negative: of_pairs(positive.reshape(-1), negative.reshape(-1))  # noqa: E731
    return rechub_retrieval(SASRec(features, max_len=PAST), 1, batches, loss)


LIBRARIES = {
    function.__name__: function
    for function in (
        *(ours_branches, keras_branches, tfrs_branches),
        *(ours_multi_task, rechub_multi_task, deepctr_multi_task),
        *(ours_m3oe, torch_m3oe),
        *(ours_retrieval, rechub_youtube_dnn, rechub_sasrec),
    )
}


def main(library, case, batch_size, dtype):
    """Trains a turn of as many batches as each line of the input says; `dtype` is for the package's own models."""

    def answer(**facts):
        print(json.dumps(facts), file=answers, flush=True)

    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # libraries print what they like
        if dtype != "float32" and library.startswith("ours"):
            import keras

            keras.mixed_precision.set_global_policy(f"mixed_{dtype}")
        started = time.perf_counter()
        parameters, train = LIBRARIES[library](case, batch_size)
        train(1)
        answer(parameters=parameters, first_step_seconds=time.perf_counter() - started)
        for line in sys.stdin:
            started = time.perf_counter()
            train(int(line))
            answer(seconds=time.perf_counter() - started)
        answer(peak_mebibytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
