"""The prefix tree of an item's valid answers: all of them are scored in one pass over what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rlmerge.frozen import frozen


@frozen(slots=True)
class AnswerTree:
    """A prompt and every prefix of its answers, each prefix once.

    ``tokens`` are the prompt's followed by one for each inner prefix; ``parents`` holds the index in ``tokens`` that
    comes before each (-1 for the first). Every edge (``sources``, ``targets``) is one prediction to read off: the next
    token ``targets`` after the token at ``sources``; ``before`` is the edge that led there (-1 after the prompt). The
    edges in ``ends`` complete an answer.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    before: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def build(cls, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> AnswerTree:
        """The tree of ``answers``, token sequences of which none is a prefix of another."""
        tokens, parents = list(prompt), list(range(-1, len(prompt) - 1))
        edges: dict[tuple[int, int], int] = {}
        sources: list[int] = []
        targets: list[int] = []
        before: list[int] = []
        nodes: list[int] = []
        ends: list[int] = []
        for answer in answers:
            node, last = len(prompt) - 1, -1
            for place, token in enumerate(answer):
                edge = edges.get((node, token))
                if edge is None:
                    edge = edges[node, token] = len(sources)
                    sources.append(node)
                    targets.append(token)
                    before.append(last)
                    inner = place + 1 < len(answer)
                    nodes.append(len(tokens) if inner else -1)
                    if inner:
                        tokens.append(token)
                        parents.append(node)
                    else:
                        ends.append(edge)
                node, last = nodes[edge], edge
        return cls(tuple(tokens), tuple(parents), tuple(sources), tuple(targets), tuple(before), tuple(ends))

    def read(self, log_probabilities: np.ndarray, likeliest: np.ndarray) -> tuple[float, bool]:
        """Log probability of giving any one of the answers, and whether the greedy answer is among them.

        ``log_probabilities`` [edges] are those of the edges, ``likeliest`` [edges] whether each is the most likely.
        """
        total, best = np.empty(len(self.sources)), np.empty(len(self.sources), bool)
        for edge, last in enumerate(self.before):
            total[edge] = log_probabilities[edge] + (total[last] if last >= 0 else 0.0)
            best[edge] = likeliest[edge] and (last < 0 or best[last])
        ends = list(self.ends)
        return float(np.logaddexp.reduce(total[ends])), bool(best[ends].any())


@frozen(slots=True)
class Packed:
    """Trees side by side: ``tokens`` and ``positions`` [B, T], ``visible`` [B, T, T] (query, key), short rows padded.

    ``visible`` is None where every row is a plain sequence of full length, for which causal attention is the same.
    """

    members: tuple[int, ...]
    tokens: np.ndarray
    positions: np.ndarray | None
    visible: np.ndarray | None


def pack(trees: Sequence[AnswerTree], batch: int) -> Iterator[Packed]:
    """The trees in batches of at most ``batch`` rows of nearly equal length."""
    order = sorted(range(len(trees)), key=lambda index: (len(trees[index].tokens), _branches(trees[index]), index))
    for first in range(0, len(order), batch):
        members = tuple(order[first : first + batch])
        length = len(trees[members[-1]].tokens)
        if all(len(trees[index].tokens) == length and not _branches(trees[index]) for index in members):
            yield Packed(members, np.array([trees[index].tokens for index in members]), None, None)
            continue
        tokens = np.zeros((len(members), length), np.int64)
        positions = np.zeros((len(members), length), np.int64)
        visible = np.zeros((len(members), length, length), bool)
        for row, index in enumerate(members):
            tree = trees[index]
            tokens[row, : len(tree.tokens)] = tree.tokens
            for place, parent in enumerate(tree.parents):
                if parent >= 0:
                    positions[row, place] = positions[row, parent] + 1
                    visible[row, place] = visible[row, parent]
                visible[row, place, place] = True
            padding = np.arange(len(tree.tokens), length)
            visible[row, padding, padding] = True  # a softmax over nothing would be NaN
        yield Packed(members, tokens, positions, visible)


def _branches(tree: AnswerTree) -> bool:
    return tree.parents != tuple(range(-1, len(tree.parents) - 1))
