"""Which tokens carry loss: all of a plain text, and of a chat what the assistant says.

A chat is rendered with the model's own template. Where the template marks the
assistant's part itself (`{% generation %}`), its marks are used. Where it does
not, the part is found by rendering twice: what the template writes up to a
turn, with the header that asks the assistant to speak, is exactly the prompt
that the model will see when it is used; what it writes up to and with the turn
is prompt and answer. Their difference is the answer, its end-of-turn mark
included. Both must be prefixes of one another, which is verified and not
assumed:

* A template that writes an earlier turn differently once a later one follows
  (those that drop the reasoning of earlier answers do) gives one example per
  answer instead of one per conversation, since that is what the model will see.
* A template whose prompt is no prefix of prompt and answer is refused.

Tokens are made of the whole text at once, never of its pieces, and belong to
the answer when they hold at least one character of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IGNORED = -100  # torch.nn.CrossEntropyLoss, ignore_index

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to train on; ``labels`` is ``input_ids`` where there is loss, else `IGNORED`."""

    input_ids: list[int]
    labels: list[int]

    def cut(self, max_length: int) -> Example:
        """The first ``max_length`` tokens."""
        return Example(self.input_ids[:max_length], self.labels[:max_length])

    @property
    def teaches(self) -> bool:
        """Whether any token has both loss and one before it that predicts it."""
        return any(label != IGNORED for label in self.labels[1:])


def encode_text(tokenizer: Any, text: str) -> Example:
    """Every token of a text carries loss, and so does the end-of-text token."""
    ids: list[int] = list(tokenizer(text)["input_ids"])
    end = tokenizer.eos_token_id
    if end is not None and ids[-1:] != [end]:
        ids.append(end)
    return Example(ids, list(ids))


def encode_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> list[Example]:
    """Turn one conversation into examples in which only the assistant's tokens carry loss.

    Args:
        tokenizer: a fast one, with a chat template.
        messages: role and content, oldest first.
        tools: what the template may say about tools.

    Returns:
        One example, or one per answer (see the top of this file); none without an answer.

    Raises:
        ValueError: the template cannot render the conversation, or writes answers that
            are no continuation of their prompts.
    """
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        return []
    spoken = list(messages[: answers[-1] + 1])  # what follows the last answer teaches nothing
    if _GENERATION.search(_template(tokenizer, tools)):
        return [_by_marks(tokenizer, spoken, tools)]
    whole = _render(tokenizer, spoken, tools)
    spans, stable = [], True
    turns = []
    for i in answers:
        prompt = _render(tokenizer, spoken[:i], tools, prompting=True) if i else ""
        answer = whole if i == answers[-1] else _render(tokenizer, spoken[: i + 1], tools)
        if not answer.startswith(prompt):
            raise ValueError(_NO_PREFIX.format(ending=_departure(prompt, answer)))
        turns.append(answer)
        spans.append((len(prompt), len(answer)))
        stable = stable and whole.startswith(answer)
    if stable:
        return [_by_spans(tokenizer, whole, spans)]
    return [_by_spans(tokenizer, text, [span]) for text, span in zip(turns, spans, strict=True)]


_NO_PREFIX = (
    "the chat template writes a prompt that the answer does not continue (they part at {ending!r}); name a template "
    "with {{% generation %}} marks under chat_template"
)


def _template(tokenizer: Any, tools: Any) -> str:
    try:
        return str(tokenizer.get_chat_template(tools=tools))
    except ValueError as error:
        raise ValueError("the model has no chat template; name a Jinja file under chat_template") from error


def _render(tokenizer: Any, messages: list[Any], tools: Any, *, prompting: bool = False) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompting)
        )
    except Exception as error:  # a template is a program: it can raise anything
        raise ValueError(f"the chat template fails: {type(error).__name__}: {error}") from error


def _by_marks(tokenizer: Any, messages: list[Any], tools: Any) -> Example:
    try:
        encoded = tokenizer.apply_chat_template(
            messages, tools=tools, return_dict=True, return_assistant_tokens_mask=True
        )
    except Exception as error:  # as above
        raise ValueError(f"the chat template fails: {type(error).__name__}: {error}") from error
    ids, mask = list(encoded["input_ids"]), encoded["assistant_masks"]
    return Example(ids, [token if spoken else IGNORED for token, spoken in zip(ids, mask, strict=True)])


def _by_spans(tokenizer: Any, text: str, spans: Iterable[tuple[int, int]]) -> Example:
    """Tokens of ``text``; those that touch one of the spans of characters carry loss."""
    # The template has written every special token already.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = list(encoded["input_ids"])
    labels = [IGNORED] * len(ids)
    ahead = iter(sorted(spans))
    start, end = next(ahead)
    for position, (first, last) in enumerate(encoded["offset_mapping"]):
        while first >= end and (following := next(ahead, None)):
            start, end = following
        if first < end and last > start:
            labels[position] = ids[position]
    return Example(ids, labels)


def _departure(prompt: str, answer: str) -> str:
    """The characters of the prompt where the answer no longer follows it."""
    same = next((i for i, (a, b) in enumerate(zip(prompt, answer, strict=False)) if a != b), len(answer))
    return prompt[max(0, same - 10) : same + 20]
