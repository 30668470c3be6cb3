# `make demo` and `make test` do all the set-up: they create .venv with pinned versions once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# Files of byte code are written when they are first used, whatever the surroundings say: tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test lint tests protos clean

INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable
# ScaNN needs TensorFlow 2.20, whose serving API has stubs that protobuf in C cannot import. Those of 2.21 work with it.
STUBS := $(BIN)/python -m pip install --quiet --no-deps tensorflow-serving-api==2.21.0

# What is pinned is unpacked by two processes at once, the large ones by one of them. Then the last one looks whether all is
# there, and at the package itself. $(1) ends what is taken from the file.
LARGE := ^(tensorflow|jaxlib|pyspark|pyarrow|scipy|tf_keras|duckdb|scann)==
UNPACK := $(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement $(VENV)
define unpack
sed '/^# $(1)/,$$d' constraints.txt > $(VENV)/pinned.txt
grep -E '$(LARGE)' $(VENV)/pinned.txt > $(VENV)/large.txt
grep -vE '$(LARGE)' $(VENV)/pinned.txt > $(VENV)/small.txt
$(UNPACK)/large.txt & large=$$!; $(UNPACK)/small.txt && wait $$large
endef

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call unpack,What only benchmarks)
	$(INSTALL) '.[dev]'
	$(STUBS)
	touch $@ $(VENV)/installed-demo

# The demo needs no Spark, JAX or ScaNN.
$(VENV)/installed-demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call unpack,What lint)
	$(INSTALL) '.[demo]'
	$(STUBS)
	touch $@

demo: $(VENV)/installed-demo
	$(BIN)/python pipelines/demo.py $(if $(DATA),"$(DATA)")

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

# Side by side: the type checker has one core.
test: $(VENV)/installed
	$(MAKE) --jobs 2 lint tests

tests: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

# What protobuf's compiler makes of the messages in `.proto` files; nothing else needs it.
protos: $(VENV)/installed
	$(BIN)/python -m grpc_tools.protoc --proto_path tfmtr/serving/protos --include_imports \
		--descriptor_set_out tfmtr/serving/protos/protos.binpb configuration.proto wire.proto

clean:
	rm -rf $(VENV) runs build dist *.egg-info
