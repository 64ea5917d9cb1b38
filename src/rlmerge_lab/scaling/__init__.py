"""The scale study "Does Sparsity Persist?", run again: its simulations, tables and figures, each statement judged.

One study is four small files of the same name: ``studies/`` computes, ``rules/`` judges, ``tables/`` and ``figures/``
show. ``registry`` puts them together, ``render/`` prints, writes files, and builds the HTML report. Needs the extra
``scaling`` (scipy, matplotlib), imported only inside the functions that use it.
"""
