"""The Python clients: openai, LangChain and llm."""

import base64
import functools
import json
import os
import subprocess
import sys
import time
import traceback
import urllib.request

URL = os.environ["DWINDLE_URL"]
BASE = URL + "/v1"
ROOT = os.environ["DWINDLE_ROOT"]
WORK = os.environ["DWINDLE_WORK"]
PICTURE = f"{ROOT}/demo/images/01-square-96.png"
QUESTION = "What do you see?"

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
# Nothing but numbers, so many that there is time to leave.
ENDLESS = {
    "type": "object",
    "properties": {"n": {"type": "array", "items": {"type": "integer"}, "minItems": 300}},
    "required": ["n"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"far": {"type": "boolean"}},
            "required": ["far"],
            "additionalProperties": False,
        },
    },
}


def picture_url():
    with open(PICTURE, "rb") as file:
        return "data:image/png;base64," + base64.b64encode(file.read()).decode()


@functools.cache
def what_run_says():
    """The answer of `dwindle run` to the same picture and question."""
    command = [os.environ["DWINDLE_BINARY"], "run", "--device", "cpu", "--image", PICTURE, "--prompt", QUESTION]
    command += ["--temperature", "0", "--json"]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)


def cancelled():
    text = urllib.request.urlopen(URL + "/metrics").read().decode()
    line = next(line for line in text.splitlines() if line.startswith('dwindle_requests_total{end="cancelled"}'))
    return float(line.split()[-1])


def is_cancelled(before):
    for _ in range(100):
        if cancelled() > before:
            return
        time.sleep(0.1)
    raise AssertionError("the server went on")


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def check(client, name, action):
    try:
        action()
        print(f"PASS {client}: {name}", flush=True)
    except Exception as error:  # noqa: BLE001 - whatever went wrong is the result
        print(f"FAIL {client}: {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        traceback.print_exc(file=sys.stderr)


def openai_checks():
    import openai

    client = openai.OpenAI(base_url=BASE, api_key="none", max_retries=0)
    user = [{"role": "user", "content": QUESTION}]
    seeing = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": picture_url(), "detail": "auto"}},
                {"type": "text", "text": QUESTION},
            ],
        }
    ]
    model = client.models.list().data[0].id
    run = what_run_says()

    def text():
        answer = client.chat.completions.create(model=model, messages=user, temperature=0)
        assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
        equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def stream():
        whole = client.chat.completions.create(model=model, messages=user, temperature=0).choices[0].message.content
        chunks = list(
            client.chat.completions.create(
                model=model, messages=user, temperature=0, stream=True, stream_options={"include_usage": True}
            )
        )
        equal(chunks[0].choices[0].delta.role, "assistant")
        equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), whole)
        equal([chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1], "stop")
        equal(chunks[-1].choices, [])
        assert chunks[-1].usage.completion_tokens > 0 and not any(chunk.usage for chunk in chunks[:-1])

    def picture():
        answer = client.chat.completions.create(model=model, messages=seeing, temperature=0)
        equal(answer.choices[0].message.content, run["answer"])
        equal(answer.model_extra["dwindle"]["descriptions"], run["descriptions"])
        # The same conversation again is cached, and the picture is not described again.
        again = client.chat.completions.create(model=model, messages=seeing, temperature=0)
        equal(again.choices[0].message.content, run["answer"])
        equal(again.usage.prompt_tokens_details.cached_tokens, again.usage.prompt_tokens - 1)

    def schema():
        from pydantic import BaseModel

        class Thing(BaseModel):
            colour: str
            count: int

        format = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
        answer = client.chat.completions.create(model=model, messages=user, response_format=format, max_tokens=200)
        thing = Thing.model_validate_json(answer.choices[0].message.content)
        assert thing.colour in ("red", "green") and 0 <= thing.count <= 9

    def tools():
        answer = client.chat.completions.create(
            model=model, messages=user, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, temperature=0
        )
        equal(answer.choices[0].finish_reason, "tool_calls")
        call = answer.choices[0].message.tool_calls[0]
        equal(call.function.name, "look")
        assert isinstance(json.loads(call.function.arguments)["far"], bool)
        with client.chat.completions.stream(
            model=model, messages=user, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look"}}, temperature=0
        ) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls[0]
        equal(streamed.function.arguments, call.function.arguments)
        # The result goes back, in the model's next turn.
        turns = user + [answer.choices[0].message.model_dump(exclude_none=True)]
        turns.append({"role": "tool", "tool_call_id": call.id, "content": "a red circle"})
        assert client.chat.completions.create(model=model, messages=turns, tools=[TOOL], max_tokens=20).choices

    def responses():
        answer = client.responses.create(model=model, input=QUESTION, temperature=0)
        whole = client.chat.completions.create(model=model, messages=user, temperature=0).choices[0].message.content
        equal(answer.output_text, whole)
        kinds = []
        deltas = ""
        for event in client.responses.create(model=model, input=QUESTION, temperature=0, stream=True):
            kinds.append(event.type)
            if event.type == "response.output_text.delta":
                deltas += event.delta
        equal((kinds[0], kinds[-1], deltas), ("response.created", "response.completed", whole))
        content = [{"type": "input_image", "image_url": picture_url()}, {"type": "input_text", "text": QUESTION}]
        seen = client.responses.create(model=model, input=[{"role": "user", "content": content}], temperature=0)
        equal(seen.output_text, run["answer"])
        tool = {"type": "function", "strict": True, **TOOL["function"]}
        called = client.responses.create(model=model, input=QUESTION, tools=[tool], tool_choice="required", parallel_tool_calls=False)
        equal((called.output[0].type, called.output[0].name), ("function_call", "look"))

    def completions():
        answer = client.completions.create(model=model, prompt="Once", max_tokens=5, temperature=0)
        equal(answer.usage.completion_tokens <= 5, True)

    def cancel():
        before = cancelled()
        format = {"type": "json_schema", "json_schema": {"name": "n", "schema": ENDLESS}}
        stream = client.chat.completions.create(model=model, messages=user, response_format=format, stream=True)
        next(iter(stream))
        stream.close()
        is_cancelled(before)

    def errors():
        for call, expected, code in [
            (lambda: client.chat.completions.create(model="gpt-4o", messages=user), openai.NotFoundError, "model_not_found"),
            (lambda: client.chat.completions.create(model=model, messages=user, n=2), openai.BadRequestError, "unsupported_parameter"),
            (
                lambda: client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 5000}]),
                openai.BadRequestError,
                "context_length_exceeded",
            ),
            (
                lambda: list(
                    client.chat.completions.create(model=model, messages=[{"role": "user", "content": "word " * 5000}], stream=True)
                ),
                openai.APIError,
                "context_length_exceeded",
            ),
            (lambda: client.embeddings.create(model=model, input="x"), openai.BadRequestError, "embeddings_not_supported"),
        ]:
            try:
                call()
            except expected as error:
                equal(error.code, code)
            else:
                raise AssertionError(f"no {code}")

    for name, action in [
        ("text", text),
        ("stream with usage", stream),
        ("picture", picture),
        ("JSON schema", schema),
        ("tool call", tools),
        ("responses", responses),
        ("completions", completions),
        ("cancel", cancel),
        ("error", errors),
    ]:
        check("openai (Python)", name, action)


def langchain_checks():
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=BASE, api_key="none", model="demo", temperature=0, max_retries=0, stream_usage=True)

    def text():
        answer = chat.invoke(QUESTION)
        assert answer.content and answer.usage_metadata["output_tokens"] > 0

    def stream():
        whole = chat.invoke(QUESTION).content
        chunks = list(chat.stream(QUESTION))
        equal("".join(chunk.content for chunk in chunks), whole)
        equal(sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 0, True)

    def picture():
        content = [{"type": "image_url", "image_url": {"url": picture_url()}}, {"type": "text", "text": QUESTION}]
        equal(chat.invoke([HumanMessage(content=content)]).content, what_run_says()["answer"])

    def schema():
        thing = chat.with_structured_output({**SCHEMA, "title": "thing"}, method="json_schema").invoke(QUESTION)
        assert thing["colour"] in ("red", "green")

    def tools():
        answer = chat.bind_tools([TOOL], tool_choice="look", parallel_tool_calls=False).invoke(QUESTION)
        equal(answer.tool_calls[0]["name"], "look")
        turns = [HumanMessage(QUESTION), answer, ToolMessage("a red circle", tool_call_id=answer.tool_calls[0]["id"])]
        chat.bind(max_tokens=20).invoke(turns)

    def cancel():
        before = cancelled()
        format = {"type": "json_schema", "json_schema": {"name": "n", "schema": ENDLESS}}
        stream = chat.bind(response_format=format).stream(QUESTION)
        next(stream)
        stream.close()
        is_cancelled(before)

    def errors():
        try:
            ChatOpenAI(base_url=BASE, api_key="none", model="nobody", max_retries=0).invoke("hi")
        except Exception as error:  # noqa: BLE001 - its class is LangChain's business
            assert "does not exist" in str(error), error
        else:
            raise AssertionError("no error")

    for name, action in [
        ("text", text),
        ("stream with usage", stream),
        ("picture", picture),
        ("JSON schema", schema),
        ("tool call", tools),
        ("cancel", cancel),
        ("error", errors),
    ]:
        check("LangChain", name, action)


def llm_checks():
    folder = os.path.join(WORK, "llm")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "extra-openai-models.yaml"), "w") as file:
        for name, model in [("here", "demo"), ("nobody", "nobody")]:
            file.write(
                f"- model_id: {name}\n  model_name: {model}\n  api_base: {BASE}\n  api_key_name: none\n"
                "  vision: true\n  supports_schema: true\n  supports_tools: true\n"
            )
    os.environ["LLM_USER_PATH"] = folder
    import llm

    program = os.path.join(os.path.dirname(sys.executable), "llm")
    here = llm.get_model("here")

    def ask(model=here, **options):
        return model.prompt(QUESTION, key="none", temperature=0, **options)

    def text():
        # As people use it: a program.
        command = [program, "-m", "here", "-o", "temperature", "0", "--key", "none", "--no-stream", QUESTION]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, stdin=subprocess.DEVNULL)
        equal(done.stdout.strip(), ask(stream=False).text().strip())

    def stream():
        response = ask()
        pieces = list(response)
        assert len(pieces) > 3, pieces
        equal("".join(pieces), ask(stream=False).text())
        assert response.usage().output > 0

    def picture():
        equal(ask(attachments=[llm.Attachment(path=PICTURE)]).text(), what_run_says()["answer"])

    def schema():
        assert json.loads(ask(schema=SCHEMA).text())["colour"] in ("red", "green")

    def tools():
        def look(far: bool) -> str:
            """Looks."""
            return "a red circle"

        # It cannot be made to call; that it may is told, and the answer is an answer.
        assert ask(tools=[look]).text()

    def cancel():
        before = cancelled()
        command = [program, "-m", "here", "--key", "none", QUESTION, "--schema", json.dumps(ENDLESS)]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        running.stdout.read(1)
        running.kill()
        running.wait()
        is_cancelled(before)

    def errors():
        try:
            ask(llm.get_model("nobody")).text()
        except Exception as error:  # noqa: BLE001 - its class is llm's business
            assert "does not exist" in str(error), error
        else:
            raise AssertionError("no error")

    for name, action in [
        ("text", text),
        ("stream with usage", stream),
        ("picture", picture),
        ("JSON schema", schema),
        ("tool call", tools),
        ("cancel", cancel),
        ("error", errors),
    ]:
        check("llm", name, action)


openai_checks()
langchain_checks()
llm_checks()
