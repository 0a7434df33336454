#!/usr/bin/env python3
"""Renders the templates of this folder with Jinja, as transformers sets it up, and writes what comes out.

    pip install jinja2 transformers
    python make_expected.py

`small.txt` holds one template a line (JSON strings are not needed: `\\n` stands for a line end, `\\\\` for a backslash);
`chat/*.jinja` are chat templates, each rendered for the conversations below. The results are `small.json` and `chat.json`.
"""

import datetime
import json
import pathlib


from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 24, 12, 5, 6, 123)


chat_template_utils.datetime = Clock

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, é."},
                "days": {"type": ["integer", "null"], "enum": [1, 2.5, None]},
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}

# What the small templates can refer to.
NAMES = {
    "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "  Hi 'you' <b>\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
    ],
    "tools": None,
    "tool": TOOL,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "text": "Hello, wörld! it's",
    "empty": "",
    "list": [3, 1, 2],
    "mixed": [1, 2.0, "a'b", None, True, [], {"k": [1]}],
    "words": ["Banana", "apple", "cherry", "Apple"],
    "dict": {"b": 1, "a": {"x": [1, 2]}, "items": "own"},
    "people": [
        {"name": "Ann", "age": 30, "at": {"city": "Rome"}},
        {"name": "bob", "age": 25, "at": {"city": "Oslo"}},
        {"name": "Cid", "age": 30},
    ],
    "one": 1,
    "pi": 3.14159,
    "none": None,
    "yes": True,
}


def tokens(**more):
    return {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", **more}


def conversation(*messages, generate=True, tools=None, **more):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": roles[role], "content": content} if isinstance(role, str) else role for role, content in messages]
    return {**tokens(), "messages": messages, "tools": tools, "documents": None, "add_generation_prompt": generate, **more}


CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "id": "call00001", "function": {"name": "weather", "arguments": {"city": "Rome", "days": None}}}]}
RESULT = {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "18 °C"}

CONVERSATIONS = {
    "one": conversation(("u", "Hello!")),
    "system": conversation(("s", " Be kind.\n"), ("u", "Hi <b>"), ("a", "Hey. "), ("u", "\nBye 'now'")),
    "ended": conversation(("u", "1+1?"), ("a", "<think>\none and one\n</think>\n\n2"), generate=False),
    "thinking": conversation(("u", "a"), ("a", "<think>\nx\n</think>\n\nb"), ("u", "c"), enable_thinking=False, thinking=True),
    "parts": conversation(("u", [{"type": "image"}, {"type": "text", "text": "What is it?"}]), ("a", [{"type": "text", "text": "A cat."}]), ("u", [{"type": "text", "text": "Sure?"}])),
    "tools": conversation(("s", "Use tools."), ("u", "Weather in Rome?"), (CALL, None), (RESULT, None), ("a", "It is warm."), ("u", "Thanks"), tools=[TOOL]),
    "wrong": conversation(("u", "a"), ("u", "b"), ("a", "c")),
}


def render(source, names):
    """The text, or `None` where Jinja refuses."""
    try:
        return chat_template_utils._cached_compile_jinja_template(source).render(**names)
    except Exception:  # whatever Python says: ours says something else
        return None


def write(name, **content):
    (HERE / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def main():
    cases = []
    for line in (HERE / "small.txt").read_text().split("\n"):
        if line and not line.startswith("## "):
            source = line.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t").replace("\0", "\\")
            cases.append({"source": source, "output": render(source, NAMES)})
    write("small.json", names=NAMES, cases=cases)
    chats = []
    for path in sorted((HERE / "chat").glob("*.jinja")):
        for name, names in CONVERSATIONS.items():
            chats.append({"template": path.stem, "names": name, "output": render(path.read_text(), names)})
    write("chat.json", conversations=CONVERSATIONS, cases=chats)
    failed = sum(case["output"] is None for case in cases)
    print(f"{len(cases)} templates, {failed} of them refused; {len(chats)} conversations")


main()
