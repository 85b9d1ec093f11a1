"""Run docs/tour.ipynb from top to bottom and store what comes out in it.

python -m tools.make_tour --testbed runs/testbed --output docs/tour.ipynb
"""

import argparse
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"


def main() -> None:
    """Write the notebook."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--testbed", type=Path, required=True, help="what `actor testbed` built")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(run_tour(Path(folder), arguments.testbed), arguments.output)


def run_tour(folder: Path, testbed: Path) -> nbformat.NotebookNode:
    """The notebook with what came out, run in `folder`, where it writes; an error in a cell is raised."""
    (folder / "runs").mkdir()
    (folder / "runs" / "testbed").symlink_to(testbed.resolve())  # else the first cell would build one
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": str(folder)}})
    client.execute()
    for cell in notebook.cells:  # the clock's times, which differ each time
        cell.metadata.pop("execution", None)
    return notebook


if __name__ == "__main__":
    main()
