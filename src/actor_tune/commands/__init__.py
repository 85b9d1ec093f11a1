"""The commands of `actor`: argv, exit statuses and the console. They use the Python API and print what it returns;
what computes does not belong here. Imports that pull in torch stand inside functions, so that `--help` and mistakes in
options answer at once.
"""
