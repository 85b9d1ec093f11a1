"""Tables for the terminal, pictures, and the HTML report: values in, something to look at out. Nothing here measures,
trains or decides, and nothing but pictures and the report is written.
"""
