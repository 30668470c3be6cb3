from pathlib import Path

from setuptools import find_packages, setup

BASELINES = ["implicit==0.7.3"]
TUNE = ["optuna>=5,<6"]
SPARK = ["ibis-framework[pyspark]>=12,<13", "pyspark==4.0.5"]

# What is fragile is pinned here; `constraints.txt` pins the rest for development and CI.
setup(
    name="tfmtr",
    version="0.1.0",
    description="Joint recommender models for many territories, scenarios and tasks: from logs to served answers.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tfmtr", "tfmtr.*"]),
    package_data={
        "tfmtr": ["py.typed"],
        "tfmtr.reporting": ["templates/*", "templates/sections/*"],
        "tfmtr.serving": ["deployment/*.template"],
    },
    python_requires=">=3.11,<3.13",
    install_requires=[
        "tensorflow>=2.20.0,<2.22",
        "keras>=3.15,<4",
        "keras-rs>=0.4,<0.5",
        "numpy>=2",
        "scipy",
        "scikit-learn>=1.7",
        "ibis-framework[duckdb]>=12,<13",
        "pandas",
        "pyarrow",
        "python-calamine",
        "tensorflow-serving-api==2.20.0",
        "grpcio",
        "grpcio-health-checking",
        "aiohttp",
        "python-rapidjson",
        "typer",
        "rich",
        "tomli-w",
        "tensorboard",
    ],
    extras_require={
        "baselines": BASELINES,
        "spark": SPARK,
        "tune": TUNE,
        "scann": ["tensorflow==2.20.0", "scann==1.4.2"],
        "text": ["keras-hub", "tensorflow-text==2.20.*"],
        "gpu": ["tensorflow[and-cuda]>=2.20.0,<2.22"],
        "jax": ["jax"],
        "plots": ["jinja2", "matplotlib"],
        "peers": ["faiss-cpu", "hnswlib", "polars", "usearch"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "ruff",
            "basedpyright",
            "openpyxl",
            "jax",
            "hypothesis",
            "kubernetes-validate",
            *BASELINES,
            *SPARK,
            *TUNE,
            "usearch",
            "jinja2",
            "matplotlib",
            "scann==1.4.2",
            "tensorflow-recommenders==0.7.7",
            "tf-keras==2.20.1",
        ],
    },
    entry_points={"console_scripts": ["tfmtr = tfmtr.cli:main"]},
)
