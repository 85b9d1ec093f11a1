"""Search for the recipe that suits one model and its prompts, on one machine or on many.

parts.py    prompts -> those to train on, to search by, and those that the search never sees
space.py    what is searched: block, rule and the numbers of a rule
bench.py    what all trials of a process share: the model, its own answers, what blocks receive
attempt.py  one trial: train, read first tokens, give up or ask for answers
storage.py  where a study is kept, and who is at work on it
study.py    many trials, by any number of processes
choose.py   which trial is taken, and how much its own figures flatter it
tune.py     all of that, then the recipe once more by `fit`, on prompts that the search has not seen
"""
