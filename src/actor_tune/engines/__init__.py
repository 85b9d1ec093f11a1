"""Engines: from prompts to answers, in this process, by vLLM, or by a server. Each is a function of the type
`engine.Engine`. What an answer is worth is none of their business.
"""
