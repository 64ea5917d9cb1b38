"""Seed 004's scale study, run again: its simulations, its tables and figures, and a verdict on each of its statements.

One study is four small files of the same name: ``studies/`` computes, ``rules/`` judges, ``tables/`` and ``figures/``
show. ``registry`` puts them together, ``render/`` prints, writes files, and builds the HTML report. Needs the extra
``scaling`` (scipy, matplotlib), imported only inside the functions that use it.
"""
