"""The methods that can be compared, one a file; `method` says what a method is, `known` lists them by name."""
