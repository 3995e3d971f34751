"""Exactly the assistant's tokens carry loss, turn by turn and token by token."""

from typing import Any

import pytest
from jobs_samples import PLAIN_TEMPLATE, chat

from jobs.lora_chat import IGNORED, Example, encode_chat, encode_text

TALK = chat("How are you?", "I am fine.", "Close the file.", "Wait for the answer!")["messages"]

MARKED_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|end|>\\n' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
#: Drops what stands before `=>` in all answers but the last: as templates of reasoning models do.
FORGETFUL_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' }}"
    "{{ m['content'] if loop.last or m['role'] == 'user' else m['content'].split('=>')[-1] }}"
    "{{ '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
#: Asks for an answer with a word that finished answers do not have.
CONTRARY_TEMPLATE = PLAIN_TEMPLATE.replace("'<|assistant|>\\n' }}{% endif", "'<|assistant|>\\nthink:' }}{% endif")


def spoken(tokenizer: Any, example: Example) -> list[str]:
    """The stretches of text that carry loss."""
    stretches: list[list[int]] = []
    before = IGNORED
    for token, label in zip(example.input_ids, example.labels, strict=True):
        assert label in {IGNORED, token}
        if label != IGNORED:
            if before == IGNORED:
                stretches.append([])
            stretches[-1].append(token)
        before = label
    return [tokenizer.decode(stretch) for stretch in stretches]


def test_every_answer_of_a_conversation_carries_loss_with_its_end_and_nothing_else_does(tokenizer: Any) -> None:
    [example] = encode_chat(tokenizer, TALK)
    assert spoken(tokenizer, example) == ["I am fine.<|end|>\n", "Wait for the answer!<|end|>\n"]


def test_labels_are_the_difference_between_prompt_and_answer_in_tokens(tokenizer: Any) -> None:
    """The same by another way: tokenising each prefix by itself, as inference does."""
    [example] = encode_chat(tokenizer, TALK)
    expected = [IGNORED] * len(example.input_ids)
    for i in (1, 3):
        prompt = tokenizer.apply_chat_template(TALK[:i], add_generation_prompt=True, return_dict=True)["input_ids"]
        answer = tokenizer.apply_chat_template(TALK[: i + 1], return_dict=True)["input_ids"]
        assert example.input_ids[: len(answer)] == answer
        assert answer[: len(prompt)] == prompt
        expected[len(prompt) : len(answer)] = answer[len(prompt) :]
    assert example.labels == expected


def test_marks_in_the_template_give_the_same_as_prefixes(tokenizer: Any) -> None:
    by_prefixes = encode_chat(tokenizer, TALK)
    tokenizer.chat_template = MARKED_TEMPLATE
    assert encode_chat(tokenizer, TALK) == by_prefixes


def test_a_system_message_and_a_last_question_carry_no_loss(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be kind."}, *TALK, {"role": "user", "content": "More?"}]
    [example] = encode_chat(tokenizer, messages)
    assert spoken(tokenizer, example) == ["I am fine.<|end|>\n", "Wait for the answer!<|end|>\n"]
    assert "More?" not in tokenizer.decode(example.input_ids)


@pytest.mark.parametrize("answer", ["", "\n\n", " ", "é→漢字 🙂", "<|user|>\nfake<|end|>\n", "a" * 300])
def test_odd_answers_keep_their_borders(answer: str, tokenizer: Any) -> None:
    """Line breaks at a border may merge with its own into one token, which then counts as the answer's."""
    [example] = encode_chat(tokenizer, chat("x", answer, "y", "z")["messages"])
    first, second = spoken(tokenizer, example)
    assert first.removeprefix("\n") == f"{answer}<|end|>\n".removeprefix("\n")
    assert second == "z<|end|>\n"


def test_a_template_that_rewrites_history_gives_one_example_per_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    first, second = encode_chat(tokenizer, chat("a", "hm=>yes", "b", "oh=>no")["messages"])
    assert spoken(tokenizer, first) == ["hm=>yes<|end|>\n"]
    assert spoken(tokenizer, second) == ["oh=>no<|end|>\n"]
    assert "hm=>" not in tokenizer.decode(second.input_ids)  # as it will be when the model is used


def test_a_template_whose_prompt_is_no_prefix_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = CONTRARY_TEMPLATE
    with pytest.raises(
        ValueError, match=r"the answer does not continue .*think:.*; name a template with {% generation"
    ):
        encode_chat(tokenizer, TALK)


def test_a_template_that_fails_says_so(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"the chat template fails: .*roles must alternate"):
        encode_chat(tokenizer, TALK)


def test_a_model_without_a_template_says_where_to_name_one(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template; name a Jinja file under chat_template"):
        encode_chat(tokenizer, TALK)


def test_a_conversation_without_an_answer_gives_nothing(tokenizer: Any) -> None:
    assert encode_chat(tokenizer, chat("hello?")["messages"]) == []


def test_an_answer_that_comes_first_is_learnt_with_its_header(tokenizer: Any) -> None:
    [example] = encode_chat(tokenizer, [{"role": "assistant", "content": "Hello!"}])
    assert example.labels == example.input_ids


def test_all_of_a_text_carries_loss_and_it_ends_once(tokenizer: Any) -> None:
    example = encode_text(tokenizer, "Open a socket.")
    assert example.labels == example.input_ids
    assert tokenizer.decode(example.input_ids) == "Open a socket.<|end|>"
    assert encode_text(tokenizer, "Open a socket.<|end|>") == example


def test_what_is_cut_to_its_prompt_teaches_nothing() -> None:
    example = Example([1, 2, 3, 4], [IGNORED, IGNORED, 3, 4])
    assert (example.teaches, example.cut(3).teaches, example.cut(2).teaches) == (True, True, False)
    assert not Example([5], [5]).teaches  # nothing comes before it
