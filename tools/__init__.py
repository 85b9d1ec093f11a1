"""Programs that make what ships with the package, and the pages of figures; run as `python -m tools.NAME`.

Nothing of the package imports from here. Page texts are in `templates/`.
"""
