"""The path of one question: how many modules, functions and calls of this project an answer goes through.

A profile function counts each call of a function that is defined in `skeleton_of_thought`, `langchain_sot` or
`llama_index_sot`, in every thread, from the moment the question is asked until the answer is complete. A generator
counts again each time it goes on. Models are scripted: they give a skeleton of seven points, and each text in a few
pieces. What an import runs is left out: each answer is asked for once before it is counted.

    langchain     `SkeletonOfThoughtChain.stream`
    llama_index   `SkeletonOfThoughtQueryEngine.query` over a synthesized retriever
    command       `sot ask --plain` on a server that gives the same texts
    engine        `LocalEngine.stream` of eight tokens on a tiny Llama

Whether the path has grown is seen by eye: `--modules` lists the modules in the order in which the question meets them,
`--functions` the functions by their number of calls.

    python benchmarks/path.py

The last line is JSON.
"""
