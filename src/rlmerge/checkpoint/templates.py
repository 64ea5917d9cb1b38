"""Chat templates by name, and whether a template's text is one.

The formats are those that models of these families were trained on; the Jinja texts are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlmerge.errors import RequestError, did_you_mean

_CHATML = """\
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

_LLAMA3 = """\
{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' ~ message.content | trim ~ '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""

_MISTRAL = """\
{%- set turns = namespace(instructions='', expected='user') -%}
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.role == 'system' and loop.first -%}
        {%- set turns.instructions = message.content ~ '\\n\\n' -%}
    {%- elif message.role != turns.expected -%}
        {{- raise_exception('user and assistant take turns in this format, after at most one system message') -}}
    {%- elif message.role == 'user' -%}
        {{- '[INST] ' ~ turns.instructions ~ message.content ~ ' [/INST]' -}}
        {%- set turns.instructions = '' -%}
        {%- set turns.expected = 'assistant' -%}
    {%- else -%}
        {{- ' ' ~ message.content ~ eos_token -}}
        {%- set turns.expected = 'user' -%}
    {%- endif -%}
{%- endfor -%}
"""

_ALPACA = """\
{%- set preamble = 'Below is an instruction that describes a task. '
    ~ 'Write a response that appropriately completes the request.' -%}
{%- if messages and messages[0].role == 'system' -%}
    {%- set preamble = messages[0].content -%}
{%- endif -%}
{{- preamble ~ '\\n\\n' -}}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{- '### Instruction:\\n' ~ message.content ~ '\\n\\n' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '### Response:\\n' ~ message.content ~ eos_token ~ '\\n\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '### Response:\\n' -}}
{%- endif -%}
"""

_EXAONE = """\
{%- if not messages or messages[0].role != 'system' -%}
    {{- '[|system|][|endofturn|]\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '[|' ~ message.role ~ '|]' ~ message.content -}}
    {{- '\\n' if message.role == 'user' else '[|endofturn|]\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '[|assistant|]' -}}
{%- endif -%}
"""

TEMPLATES = {"alpaca": _ALPACA, "chatml": _CHATML, "exaone": _EXAONE, "llama3": _LLAMA3, "mistral": _MISTRAL}
"""Jinja text by name."""


def named_template(text: str, where: str = "chat_template") -> str:
    """The template that a recipe's ``chat_template`` asks for: a name of ``TEMPLATES``, or Jinja text as it is.

    RequestError for a word that is neither.
    """
    if text in TEMPLATES:
        return TEMPLATES[text]
    if "{" in text:
        return text
    hint = f"{did_you_mean(text, TEMPLATES)} Or write auto, a model of the merge, or a template's Jinja text."
    raise RequestError(f"unknown chat template '{text[:60]}'", where=where, hint=hint)


def template_fault(text: str) -> str | None:
    """Why ``text`` does not compile in the environment that renders chat templates; None if it does.

    Nothing of it is executed. Without Jinja2, which comes with transformers, nothing is found wrong.
    """
    try:
        import jinja2
    except ImportError:
        return None
    environment = _environment()
    try:
        tree = environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "it is nested too deeply"
    except Exception as error:  # a number too long to be one, and the like
        return str(error)
    unknown = _unknown(tree, environment)
    return next((f"line {line}: there is no {kind} '{name}'" for kind, name, line in unknown), None)


def _unknown(tree: Any, environment: Any) -> Iterable[tuple[str, str, int]]:
    from jinja2 import nodes

    for kind, node_type, known in (
        ("filter", nodes.Filter, environment.filters),
        ("test", nodes.Test, environment.tests),
    ):
        for node in tree.find_all(node_type):
            if node.name not in known:
                yield kind, node.name, node.lineno


def _environment() -> Any:
    """Jinja as transformers sets it up: loop controls, and a block around what the assistant generates."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja's own spelling

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
