"""The reference of the library as pages, from its docstrings: python docs/reference.py, then open docs/reference/index.html."""

import warnings
from pathlib import Path

import pdoc

import trainflat
import trainflat.hf

PAGES = Path(__file__).with_suffix("")

if __name__ == "__main__":
    warnings.simplefilter("error")
    # A dataclass's __init__ is read where its child stands, which may not import what its parent's fields name.
    warnings.filterwarnings("ignore", message="Error parsing type annotation")
    for package in (trainflat, trainflat.hf):  # what is loaded when first asked for is asked for now
        vars(package).update({name: getattr(package, name) for name in package.__all__})
    pdoc.render.configure(docformat="google", footer_text=f"trainflat {trainflat.__version__}")
    pdoc.pdoc("trainflat", "trainflat.lightning", "trainflat.reports.paper.study", output_directory=PAGES)
    print(PAGES / "index.html")
