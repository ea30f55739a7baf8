"""Which package brings which module, as far as lint must know it. Data."""

from __future__ import annotations

# A module whose package has another name.
PACKAGES: dict[str, tuple[str, ...]] = {
    "attr": ("attrs",),
    "bs4": ("beautifulsoup4",),
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "dateutil": ("python-dateutil",),
    "dotenv": ("python-dotenv",),
    "docx": ("python-docx",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "fitz": ("pymupdf",),
    "flash_attn": ("flash-attn",),
    "git": ("gitpython",),
    "google": ("google-api-core", "protobuf", "google-cloud-storage", "google-generativeai"),
    "IPython": ("ipython", "ipykernel"),
    "jwt": ("pyjwt",),
    "lightning": ("lightning", "pytorch-lightning"),
    "magic": ("python-magic",),
    "mpl_toolkits": ("matplotlib",),
    "OpenSSL": ("pyopenssl",),
    "osgeo": ("gdal",),
    "PIL": ("pillow",),
    "pkg_resources": ("setuptools",),
    "pylab": ("matplotlib",),
    "pytorch_lightning": ("pytorch-lightning", "lightning"),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "umap": ("umap-learn",),
    "xla": ("torch-xla",),
    "yaml": ("pyyaml",),
}

# What comes along with a package (its own requirements, 2026-11), as far as scripts import it.
_HUB = ("huggingface-hub", "tqdm", "pyyaml", "packaging", "filelock", "fsspec", "typing-extensions")
_TORCH = ("torch", "sympy", "networkx", "jinja2", "fsspec", "filelock", "typing-extensions", "setuptools")
_TRANSFORMERS = ("transformers", *_HUB, "numpy", "regex", "tokenizers", "safetensors")
_DATASETS = (
    "datasets",
    *_HUB,
    "numpy",
    "pandas",
    "pyarrow",
    "dill",
    "multiprocess",
    "xxhash",
    "requests",
    "python-dateutil",
)
_ACCELERATE = ("accelerate", *_TORCH, *_HUB, "numpy", "psutil", "safetensors")
BRINGS: dict[str, tuple[str, ...]] = {
    "accelerate": _ACCELERATE,
    "bitsandbytes": (*_TORCH, "numpy", "packaging"),
    "datasets": _DATASETS,
    "diffusers": (*_HUB, "numpy", "pillow", "regex", "requests", "safetensors"),
    "evaluate": (*_DATASETS,),
    "ipykernel": ("ipython", "traitlets", "psutil", "packaging"),
    "lightning": (*_TORCH, "torchmetrics", "pytorch-lightning", "numpy", "tqdm", "pyyaml"),
    "matplotlib": ("numpy", "pillow", "packaging", "python-dateutil"),
    "pandas": ("numpy", "python-dateutil"),
    "peft": ("peft", *_ACCELERATE, *_TRANSFORMERS),
    "pytorch-lightning": (*_TORCH, "torchmetrics", "numpy", "tqdm", "pyyaml"),
    "scikit-learn": ("numpy", "scipy", "joblib", "threadpoolctl"),
    "seaborn": ("matplotlib", "numpy", "pandas"),
    "sentence-transformers": (*_TORCH, *_TRANSFORMERS, "scikit-learn", "scipy", "tqdm", "pillow"),
    "timm": (*_TORCH, "torchvision", *_HUB, "safetensors", "pyyaml"),
    "torch": _TORCH,
    "torchaudio": _TORCH,
    "torchvision": (*_TORCH, "numpy", "pillow"),
    "transformers": _TRANSFORMERS,
    "trl": ("trl", *_ACCELERATE, *_DATASETS, *_TRANSFORMERS),
    "unsloth": ("unsloth-zoo", "trl", "peft", "bitsandbytes", *_ACCELERATE, *_DATASETS, *_TRANSFORMERS),
}

# What gpurun's own environment has (payload/requirements.txt), for a script that names no package at all.
STACK = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets")
NOTEBOOK = ("nbclient", "nbformat", "ipykernel")
