//! Which token ends an answer, as the chat template shows: what it writes behind an answer, once the conversation goes on.

use std::collections::BTreeSet;

use crate::template::{Message, Role, Template};
use crate::tokenizer::Tokenizer;

const QUESTION: &str = "Xq7 question";
const ANSWER: &str = "Yk3 answer";

/// A conversation of three messages and one of two, as the template writes them.
pub(crate) fn examples(template: &Template) -> Vec<String> {
    let [question, answer] = [Message::new(Role::User, QUESTION), Message::new(Role::Assistant, ANSWER)];
    let longer = template.render(&[question.clone(), answer.clone(), question.clone()], true);
    let shorter = template.render(&[question, answer], false);
    longer.into_iter().chain(shorter).collect()
}

/// The added tokens that stand behind the answer in the [`examples`], with their texts: the ends of turns; where a template
/// writes none, the marks that begin the next turn.
pub(crate) fn ends(tokenizer: &Tokenizer, examples: &[String]) -> BTreeSet<(u32, String)> {
    let behind = examples.iter().filter_map(|text| text.split_once(ANSWER));
    let ends = behind.filter_map(|(_, rest)| tokenizer.added_at_start(rest.trim_start()));
    ends.map(|(token, text)| (token, text.to_owned())).collect()
}
