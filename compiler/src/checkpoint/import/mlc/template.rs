//! `conv_template`: MLC's form of a chat template (`python/mlc_llm/protocol/conversation_protocol.py`) as Jinja.
//!
//! A prompt is the system text, then for each message its role, a separator, the content within the role's template, and a
//! separator of messages; at last the role of the assistant.

use serde_json::{Map, Value};

/// The same template in Jinja; `None` where it is none, or one whose meaning is more than joining texts.
pub fn jinja(template: &Value) -> Option<String> {
    let template = template.as_object()?;
    if template.get("strip_reasoning_in_history").and_then(Value::as_bool) == Some(true) {
        return None;
    }
    let text = |key: &str| text(template, key);
    let roles = template.get("roles")?.as_object()?;
    let separators = template.get("seps")?.as_array()?;
    let first = separators.first()?.as_str()?;
    let second = separators.get(1).map_or(Some(first), Value::as_str)?;
    let [user, assistant] = ["user", "assistant"].map(|role| roles.get(role).and_then(Value::as_str));
    let (user, assistant) = (user?, assistant?);
    let templates = template.get("role_templates").and_then(Value::as_object);
    let content = |role: &str| {
        let placeholder = format!("{{{role}_message}}");
        let around = templates.and_then(|templates| templates.get(role)?.as_str()).unwrap_or(&placeholder);
        around.replace("{function_string}", "").split_once(&placeholder).map(|(a, b)| (a.to_owned(), b.to_owned()))
    };
    let ((user_before, user_after), (assistant_before, assistant_after)) = (content("user")?, content("assistant")?);
    let system = template.get("system_template").and_then(Value::as_str).unwrap_or("{system_message}");
    let system = match system.split_once("{system_message}") {
        Some((before, after)) => format!("{} + system_message + {}", literal(before), literal(after)),
        None => literal(system),
    };
    let starts = template.get("system_prefix_token_ids").and_then(Value::as_array).is_some_and(|ids| !ids.is_empty());
    let after_system = template.get("add_role_after_system_message").and_then(Value::as_bool) != Some(false);
    let between = text("role_content_sep");
    let lines = [
        "{%- if messages and messages[0]['role'] == 'system' -%}".to_owned(),
        "{%- set system_message = messages[0]['content'] -%}{%- set turns = messages[1:] -%}".to_owned(),
        "{%- else -%}".to_owned(),
        format!("{{%- set system_message = {} -%}}{{%- set turns = messages -%}}", literal(text("system_message"))),
        "{%- endif -%}".to_owned(),
        format!("{{%- set system = {system} -%}}"),
        format!("{{{{- {} + system -}}}}", if starts { "bos_token" } else { "''" }),
        "{%- for message in turns -%}".to_owned(),
        "{%- if message['role'] == 'assistant' -%}".to_owned(),
        format!(
            "{{{{- {} + message['content'] + {} -}}}}",
            literal(&format!("{assistant}{between}{assistant_before}")),
            literal(&format!("{assistant_after}{second}"))
        ),
        "{%- else -%}".to_owned(),
        format!(
            "{{%- if {after_system} or not system or not loop.first -%}}{{{{- {} -}}}}{{%- endif -%}}",
            literal(&format!("{user}{between}"))
        ),
        format!(
            "{{{{- {} + message['content'] + {} -}}}}",
            literal(&user_before),
            literal(&format!("{user_after}{first}"))
        ),
        "{%- endif -%}".to_owned(),
        "{%- endfor -%}".to_owned(),
        format!(
            "{{%- if add_generation_prompt -%}}{{{{- {} -}}}}{{%- endif -%}}",
            literal(&format!("{assistant}{}", text("role_empty_sep")))
        ),
    ];
    Some(lines.join("\n") + "\n")
}

fn text<'t>(template: &'t Map<String, Value>, key: &str) -> &'t str {
    template.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A text as Jinja writes it, whose escapes are those of JSON.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}
