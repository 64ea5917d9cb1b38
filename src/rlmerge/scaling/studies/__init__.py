"""The computations: one file a study, each with one function ``run(seed, …)`` that returns a frozen dataclass."""
