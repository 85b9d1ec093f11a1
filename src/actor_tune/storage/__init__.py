"""Files and folders: written whole or not at all, tables read with every mistake named by file and row, where a model's
files are, and versions. Nothing here knows what is in them: no prompt, no verdict, no tensor.
"""
