"""Templates: messages, parameters and the kind of answer of a task.

A template is a TOML file, parsed into a ``Template``. ``Renderer`` compiles it once for the columns of an input and
then turns rows into messages. Messages are Jinja2 in a sandbox without a loader. The value of a cell is inserted,
never rendered, so a cell that holds ``{{ … }}`` arrives unchanged.

A name means, in this order: ``row`` (every column by its name), a variable of the template or of the job,
``text`` (the chosen column), a column. A name that means none of these is an error before the first request.
"""

from batchllm.records import AnswerSpec
from batchllm.template.columns import TEXT, cell_texts, text_column, text_like
from batchllm.template.file import builtin_names, from_prompt, load, parse
from batchllm.template.model import LEADING_ROLES, Combine, Message, Template, literal
from batchllm.template.render import Renderer
from batchllm.template.values import KNOWN_PARAMETERS, RenderError, dumps, parameter_value, to_json

__all__ = [
    "KNOWN_PARAMETERS",
    "LEADING_ROLES",
    "TEXT",
    "AnswerSpec",
    "Combine",
    "Message",
    "RenderError",
    "Renderer",
    "Template",
    "builtin_names",
    "cell_texts",
    "dumps",
    "from_prompt",
    "literal",
    "load",
    "parameter_value",
    "parse",
    "text_column",
    "text_like",
    "to_json",
]
