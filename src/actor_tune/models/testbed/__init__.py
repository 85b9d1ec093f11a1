"""The reference testbed: a small real chat model that refuses too much, built from PyPI alone. It needs nothing of this
package but storage, and nothing else here knows it.
"""
