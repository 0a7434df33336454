//! The demo models' templates, the idioms of published ones, and hostile ones.

use std::time::{Duration, UNIX_EPOCH};

use expect_test::{Expect, expect};
use serde_json::Value as Json;

use super::*;
use crate::tokenizer::Tokenizer;

fn demo(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../demo/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn demo_json(path: &str) -> Json {
    serde_json::from_slice(&demo(path)).unwrap()
}

fn parse(source: &str, placeholder: Option<&str>) -> Result<Template, Error> {
    let tokens = [("bos_token".to_owned(), "<s>".to_owned()), ("eos_token".to_owned(), "</s>".to_owned())];
    Template::parse(source, &tokens.into(), placeholder, UNIX_EPOCH + Duration::from_secs(1_709_164_800))
}

fn user(text: &str, pictures: usize) -> Message {
    Message { pictures, ..Message::new(Role::User, text) }
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn system(text: &str) -> Message {
    Message::new(Role::System, text)
}

#[track_caller]
fn check(template: &Template, messages: &[Message], expected: Expect) {
    expected.assert_eq(&template.render(messages, true).unwrap());
}

#[track_caller]
fn check_refused(source: &str, expected: Expect) {
    let result = parse(source, None);
    expected.assert_eq(&result.map_or_else(|e| e.to_string(), |_| "accepted".into()));
}

fn pocket_gemma() -> Template {
    let config = demo_json("pocket-gemma/tokenizer_config.json");
    let tokens = [("bos_token".to_owned(), "<bos>".to_owned())].into();
    Template::parse(config["chat_template"].as_str().unwrap(), &tokens, None, UNIX_EPOCH).unwrap()
}

fn pocket_llava() -> Template {
    let source = String::from_utf8(demo("pocket-llava/chat_template.jinja")).unwrap();
    Template::parse(&source, &BTreeMap::new(), Some("<image>"), UNIX_EPOCH).unwrap()
}

#[test]
fn prompt_of_the_describing_demo_model() {
    let expected = demo_json("images/expected.json");
    let template = pocket_llava();
    let prompt = template.render(&[user("Describe the image.", 1)], true).unwrap();
    assert_eq!(prompt, expected["prompt"].as_str().unwrap());
    let tokenizer = Tokenizer::from_bytes(&demo("pocket-llava/tokenizer.json")).unwrap();
    // All but the image token itself; `image::tiles::tests` adds the rows that take its place.
    assert_eq!(tokenizer.encode(&prompt, false).unwrap().len() - 1, 13);
}

#[test]
fn every_chat_of_the_demo_has_as_many_tokens_as_expected() {
    let expected = demo_json("chats/expected.json");
    let template = pocket_gemma();
    let tokenizer = Tokenizer::from_bytes(&demo("pocket-gemma/tokenizer.json")).unwrap();
    for chat in expected["chats"].as_array().unwrap() {
        let mut messages = Vec::new();
        for turn in chat.as_array().unwrap() {
            messages.push(user(turn["user"].as_str().unwrap(), 0));
            let tokens = tokenizer.encode(&template.render(&messages, true).unwrap(), false).unwrap();
            assert_eq!(tokens.len() as u64, turn["prompt_tokens"].as_u64().unwrap(), "{messages:?}");
            let answer: Vec<u32> =
                turn["expected_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(tokenizer.decode(&answer).unwrap(), turn["expected"].as_str().unwrap());
            messages.push(assistant(turn["expected"].as_str().unwrap()));
        }
    }
}

#[test]
fn instructions_go_to_the_first_user_where_the_role_is_refused() {
    check(
        &pocket_gemma(),
        &[system("Be kind."), user(" Hi ", 0), assistant("Hello."), user("Bye", 0)],
        expect![[r#"
            <bos><start_of_turn>user
            Be kind.

             Hi<end_of_turn>
            <start_of_turn>model
            Hello.<end_of_turn>
            <start_of_turn>user
            Bye<end_of_turn>
            <start_of_turn>model
        "#]],
    );
}

#[test]
fn instructions_keep_their_role_where_it_is_known() {
    let source = "{% for m in messages %}{% if loop.first and m.role != 'system' %}{{ '<|system|>none\n' }}{% endif %}\
        {{ '<|' + m['role'] + '|>' + m.content.strip() + eos_token + '\n' }}{% endfor %}\
        {%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
    let template = parse(source, None).unwrap();
    check(
        &template,
        &[system(" Be kind. "), user("Hi", 0)],
        expect![[r#"
            <|system|>Be kind.</s>
            <|user|>Hi</s>
            <|assistant|>"#]],
    );
    check(
        &template,
        &[user("Hi", 0)],
        expect![[r#"
            <|system|>none
            <|user|>Hi</s>
            <|assistant|>"#]],
    );
}

#[test]
fn pictures_stand_before_the_text_several_too() {
    check(
        &pocket_llava(),
        &[user("What is it?", 2), assistant("A cat."), user("Where?", 0)],
        expect![[r#"
            <|im_start|>user <image><image>
            What is it?<|im_end|><|im_start|>assistant 
            A cat.<|im_end|><|im_start|>user 
            Where?<|im_end|><|im_start|>assistant
        "#]],
    );
    // A template of strings only: the placeholders are written into the text.
    let template = parse("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", Some("<image>")).unwrap();
    check(
        &template,
        &[user("What is it?", 2)],
        expect![[r#"
            [<image>
            <image>
            What is it?]"#]],
    );
}

#[test]
fn templates_that_take_both_kinds_of_content_get_the_one_that_shows_pictures() {
    let source = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
        {% for part in m.content %}{% if part['type'] == 'image' %}<img>{% elif 'text' in part %}{{ part.text }}{% endif %}\
        {% endfor %}{% endif %}{% endfor %}";
    check(&parse(source, Some("<img>")).unwrap(), &[user("x", 1)], expect!["<img>x"]);
    check(&parse(source, None).unwrap(), &[user("x", 0)], expect!["x"]);
}

#[test]
fn idioms_of_published_templates() {
    let source = r"
        {%- set ns = namespace(last=-1, seen='') -%}
        {#- A comment {% with a tag %}. #}
        {%- for message in messages[::-1] %}
            {%- if message.role == 'user' and ns.last < 0 %}{% set ns.last = messages | length - 1 - loop.index0 %}{% endif %}
        {%- endfor %}
        {%- for message in messages %}
            {%- if message.role == 'system' %}{% continue %}{% endif %}
            {%- if loop.index0 > 9 %}{% break %}{% endif %}
            {%- set words = message['content'].split('</think>')[-1].lstrip('\n') %}
            {{- '<' ~ message.role ~ (' last' if loop.index0 == ns.last else '') ~ '>' }}
            {%- if message.role == 'assistant' %}
                {%- generation %}
                {{- words | upper }}
                {%- endgeneration %}
            {%- else %}
                {{- words.replace('a', 'o') }}
            {%- endif %}
        {%- endfor %}
        {{- ' ' ~ strftime_now('%d %b %Y') ~ ' ' ~ {'a': [1, 'é<'], 'b': none} | tojson }}
        {{- [messages[0]['content'][:2], bos_token, tools is none, undefined_name is defined] | join('|') }}
        {%- macro twice(x) %}{{ x }}{{ x }}{% endmacro %}
        {{- twice('ab'.startswith('a') and 'é'.title()) }}";
    check(
        &parse(source, None).unwrap(),
        &[user("banana", 0), assistant("<think>\nhm</think>\n\nyes"), user("what", 0)],
        expect![[
            r#"<user>bonono<assistant>YES<user last>whot 29 Feb 2024 {"a": [1, "é<"], "b": null}ba|<s>|True|FalseÉÉ"#
        ]],
    );
}

#[test]
fn blocks_take_their_line_with_them() {
    let source =
        "{% for m in messages %}\n    {% generation %}\n{{ m.content }}\n    {% endgeneration %}\nx\n{% endfor %}\n";
    check(&parse(source, None).unwrap(), &[user("Hi", 0)], expect!["Hi\nx\n"]);
}

#[test]
fn errors_name_the_line() {
    check_refused("a\n{% if %}", expect!["line 2 of the chat template is not understood: unexpected '%}'"]);
    check_refused(
        "a\n\n{{ messages[0].content.nonsense() }}",
        expect!["line 3 of the chat template fails: 'str object' has no attribute 'nonsense'"],
    );
    check_refused(
        "\n{{ raise_exception('Only for tools') }}",
        expect!["the chat template refuses this conversation (line 2): Only for tools"],
    );
    check_refused(
        "nothing",
        expect!["the chat template leaves out the user's message; its model cannot be talked to, only `--raw` works"],
    );
}

#[test]
fn endless_templates_are_stopped() {
    check_refused(
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        expect!["the chat template was stopped at line 1: it takes more than 5000000 steps"],
    );
    check_refused(
        "{% for a in range(9999) %}{% for b in range(1000) %}{{ 'xxxxxxxxxx' * 100 }}{% endfor %}{% endfor %}",
        expect!["the chat template was stopped at line 1: it takes more than 5000000 steps"],
    );
    assert!(parse("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", None).is_err());
}

#[test]
fn messages_hold_no_escapes() {
    check_refused(
        "{{ raise_exception('a\\x1b]52;c;ZXZpbA==\\x07b\\x9b') }}",
        expect![[r"the chat template refuses this conversation (line 1): a\u{1b}]52;c;ZXZpbA==\u{7}b\u{9b}"]],
    );
    check_refused(
        "{{ '\u{1b}[2J' % 1 }}{{ {}['\u{1b}[2J'].x }}",
        expect!["line 1 of the chat template fails: not all arguments converted during string formatting"],
    );
    let long = parse("{{ raise_exception('x' * 100000) }}", None).unwrap_err().to_string();
    assert!(long.len() < 1000, "{} bytes", long.len());
}

#[test]
fn handovers_are_contained_too() {
    let handover = Handover::parse("{% for i in range(40) %}{{ message * 9999999 }}{% endfor %}").unwrap();
    assert!(matches!(handover.render(&[], "hello"), Err(Error::Endless { .. })));
    assert!(matches!(Handover::parse(&format!("{{{{ {}1 }}}}", "-".repeat(50_000))), Err(Error::Endless { .. })));
}

#[test]
fn handover_of_descriptions() {
    let source = "{% for description in descriptions %}The user shared an image. Image description: {{ description }}\n{% endfor %}{{ message }}";
    let handover = Handover::parse(source).unwrap();
    let text = handover.render(&["A red cross.".into(), "A <b>.".into()], "What do you see?").unwrap();
    expect![[r#"
        The user shared an image. Image description: A red cross.
        The user shared an image. Image description: A <b>.
        What do you see?"#]]
    .assert_eq(&text);
}

#[test]
fn the_time_changes_once_a_day() {
    let source = "{{ strftime_now('%d %H') }}{{ messages[0].content }}";
    let mut template = Template::parse(source, &BTreeMap::new(), None, UNIX_EPOCH).unwrap();
    let mut at = |hours: u64| {
        template.set_day(UNIX_EPOCH + Duration::from_secs(hours * 3600));
        template.render(&[user(" Hi", 0)], true).unwrap()
    };
    assert_eq!([at(3), at(23), at(25), at(47)], ["01 00 Hi", "01 00 Hi", "02 01 Hi", "02 01 Hi"]);
}
