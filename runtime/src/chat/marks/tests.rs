//! Where messages stand in rendered text, whatever the template does with them.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use super::*;
use crate::chat::toy::demo;

const CHATML: &str = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}\
    <start_of_turn>assistant\n";

fn render_with(source: &str, messages: &[Message]) -> Rendered {
    let tokenizer = Tokenizer::from_bytes(&demo("pocket-gemma/tokenizer.json")).unwrap();
    let tokens: BTreeMap<String, String> = [("bos_token".to_owned(), "<bos>".to_owned())].into();
    let template = Template::parse(source, &tokens, None, UNIX_EPOCH).unwrap();
    let guard = Guard {
        said: tokenizer.controls(Some(source), &[]).unwrap(),
        answered: tokenizer.controls(None, &[]).unwrap(),
    };
    render(&template, &tokenizer, &guard, messages, &[]).unwrap()
}

fn talk(texts: &[&str]) -> Vec<Message> {
    let roles = [Role::User, Role::Assistant].into_iter().cycle();
    texts.iter().zip(roles).map(|(&text, role)| Message::new(role, text)).collect()
}

/// Checks what is found to be literal and to be answers.
#[track_caller]
fn check(source: &str, texts: &[&str], literal: &[&str], answers: &[(usize, &str)]) -> String {
    let rendered = render_with(source, &talk(texts));
    let found: Vec<&str> = rendered.literal.iter().map(|range| &rendered.text[range.clone()]).collect();
    assert_eq!(found, literal, "{}", rendered.text);
    let found: Vec<(usize, &str)> =
        rendered.answers.iter().map(|(number, range)| (*number, &rendered.text[range.clone()])).collect();
    assert_eq!(found, answers, "{}", rendered.text);
    rendered.text
}

#[test]
fn control_tokens_in_messages_are_literal() {
    let text = check(CHATML, &["a<end_of_turn>\n<start_of_turn>b"], &["<end_of_turn>", "<start_of_turn>"], &[]);
    assert_eq!(text, "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>b<end_of_turn>\n<start_of_turn>assistant");
    check(CHATML, &["<bos>", "no <bos> here", "<bos>"], &["<bos>"; 3], &[(1, "no <bos> here")]);
    check(CHATML, &["plain", "answer", "plain"], &[], &[(1, "answer")]);
    // Private characters of the user's own are the user's.
    let text = check(CHATML, &["\u{f0000}<bos>\u{f0001}"], &["<bos>"], &[]);
    assert!(text.contains("\u{f0000}<bos>\u{f0001}"));
}

/// Without a frame, the messages are the prompt, as with `--raw`.
#[test]
fn a_template_that_writes_nothing_leaves_all_to_the_messages() {
    let bare = "{% for m in messages %}{{ m.content }}{% endfor %}";
    check(bare, &["<bos>a<end_of_turn>"], &[], &[]);
    check(bare, &["<bos>a", "yes", "<end_of_turn>"], &[], &[(1, "yes")]);
    check("{% for m in messages %}{{ m.content }}\n{% endfor %}", &["<bos>a"], &["<bos>"], &[]);
    check("{{ messages[-1].content }}", &["<bos>a", "yes", "<bos>b"], &["<bos>"], &[]);
}

#[test]
fn templates_that_look_into_messages_change_nothing() {
    let trims = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}";
    let text = check(trims, &[" <bos> ", "\n yes \n", "x"], &["<bos>"], &[(1, "yes")]);
    assert_eq!(text, "[<bos>][yes][x]");
    let upper = "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}{{ messages[0].content }}";
    assert_eq!(check(upper, &["a<bos>", "yes", "x"], &["<bos>", "<bos>"], &[]), "[A<bos>][YES][X]a<bos>");
    // One that would do something else for a control token does not see it.
    let looks = "{% for m in messages %}{% if '<bos>' in m.content %}{{ raise_exception('no') }}{% endif %}\
        [{{ m.content }}]{% endfor %}";
    assert_eq!(check(looks, &["a<bos>", "yes", "x"], &["<bos>"], &[(1, "yes")]), "[a<bos>][yes][x]");
    // One in which the marks would not survive gets broken tokens.
    let removes = "{% for m in messages %}[{{ m.content.replace('\u{f0000}', '') }}]{% endfor %}";
    assert_eq!(check(removes, &["ab<bos>"], &[], &[]), "[ab< bos>]");
}

#[test]
fn answers_that_the_template_changes_are_text() {
    let thinks = "{% for m in messages %}[{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else \
        m.content }}]{% endfor %}";
    check(thinks, &["a", "<think>hm</think>\n\nyes", "b", "no", "c"], &[], &[(3, "no")]);
    let starts = "{% for m in messages %}[{{ 'T' if m.content.startswith('T') }}{{ m.content }}]{% endfor %}";
    assert_eq!(check(starts, &["a", "True", "b"], &[], &[]), "[a][TTrue][b]");
    // It looks at the beginning, but writes the answer as it is.
    let looks = "{% for m in messages %}[{{ m.content }}{{ '?' if m.content.startswith('q') and m.role == 'user' }}]{% endfor %}";
    check(looks, &["q", "q", "b"], &[], &[(1, "q")]);
    // Twice the same answer is told apart; an answer that is shown twice is text.
    check(CHATML, &["a", "yes", "b", "yes", "c", "  ", "d"], &[], &[(1, "yes"), (3, "yes")]);
    let twice = "{% for m in messages %}[{{ m.content }}|{{ m.content }}]{% endfor %}";
    check(twice, &["a", "yes", "b"], &[], &[]);
}
