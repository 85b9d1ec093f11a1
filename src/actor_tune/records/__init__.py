"""Everything that is stored, one frozen dataclass each, with its file's name and schema number; `file` reads and writes
them all. The same classes are what flows return and what tables and pages are made of. No model is
loaded here, nothing measured and nothing drawn.
"""
