# %% [markdown]
# # From Python
#
# Jupyter (with jupytext) and VS Code open this file as a notebook; `python notebook.py` runs it as it is.

# %%
import os
from pathlib import Path

import nas
from nas import api

out = Path(os.environ.get("OUT", "results/notebook"))
trials = int(os.environ.get("TRIALS", "24"))
epochs = int(os.environ.get("EPOCHS", "12"))

# %% Search; `nas.open_run(out)` opens the run again later.
run = nas.search(
    os.environ.get("SPACE", "inverted_residual"),
    dataset="digits",
    objectives=("accuracy", "size"),
    trials=trials,
    epochs=epochs,
    out=out / "search",
)

# %% The front and all trials are tables of pandas.
print(run.front[["name", "accuracy", "size_bytes"]])
print(run.trials.groupby("state").seconds.sum())

# %% The report is a page of its own; every figure of it is one of plotly, too.
print(api.report(run.path))
figure = nas.figure(run, "pareto", x="macs", colour="params")
figure.write_html(out / "pareto.html")

# %% The most accurate network within limits.
best = run.best(limit={"size": "10MB"})
print(best.architecture.to_yaml())

# %% It is an ordinary `nn.Module`, with fresh weights or with those of the search.
network = nas.build(best.architecture, 10)
print(f"{sum(weight.numel() for weight in network.parameters()):,} parameters")
print(f"{nas.cost(best.architecture).macs:,} multiply-accumulates")

# %% Trained in full, and written as ONNX.
trained = nas.train(best.architecture, dataset="digits", epochs=epochs, out=out / "best")
exported = api.export(trained.model, form="onnx")
print(f"{trained.test_accuracy:.0%} of {trained.test_images} test images; {exported.model.files[0]}")
