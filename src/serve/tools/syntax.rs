//! How a family of models writes calls, detected from its chat template.

/// How calls are written in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, and many that were trained after them.
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole answer, perhaps after `<|python_tag|>`: Llama 3.
    Llama,
    /// `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`: FunctionGemma.
    FunctionGemma,
    /// A fence `tool_code` with a call in Python: Gemma 3.
    ToolCode,
    /// A JSON object or list of them as the whole answer: whatever else knows tools.
    Json,
}

impl Syntax {
    /// The syntax of a template; `None` where it knows no tools.
    pub fn detect(template: &str) -> Option<Syntax> {
        let has = |text: &str| template.contains(text);
        // Calls in XML, as Qwen 3 Coder writes them, are not read.
        if has("<function=") {
            return None;
        }
        if !has_word(template, "tools") {
            return None;
        }
        Some(match () {
            () if has("<start_function_call>") => Syntax::FunctionGemma,
            () if has("<tool_call>") => Syntax::Hermes,
            () if has("tool_code") => Syntax::ToolCode,
            () if has("<|python_tag|>") || has("\"parameters\": ") => Syntax::Llama,
            () => Syntax::Json,
        })
    }

    /// What begins a call; `None` where a call is the whole answer.
    pub fn opening(self) -> Option<&'static str> {
        match self {
            Syntax::Hermes => Some("<tool_call>"),
            Syntax::FunctionGemma => Some("<start_function_call>"),
            Syntax::ToolCode => Some("```tool_code"),
            Syntax::Llama | Syntax::Json => None,
        }
    }

    /// What ends a call.
    pub fn closing(self) -> Option<&'static str> {
        match self {
            Syntax::Hermes => Some("</tool_call>"),
            Syntax::FunctionGemma => Some("<end_function_call>"),
            Syntax::ToolCode => Some("```"),
            Syntax::Llama | Syntax::Json => None,
        }
    }

    /// Whether calls are JSON objects.
    pub fn is_json(self) -> bool {
        matches!(self, Syntax::Hermes | Syntax::Llama | Syntax::Json)
    }
}

/// Whether a template refers to a name.
fn has_word(template: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    template.match_indices(word).any(|(at, _)| {
        let before = template[..at].chars().next_back().is_some_and(is_part);
        let behind = template[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !behind
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_templates() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates/chat");
        for (name, expected) in [
            ("qwen25", Some(Syntax::Hermes)),
            ("qwen3", Some(Syntax::Hermes)),
            ("hermes_tools", Some(Syntax::Hermes)),
            ("llama31_tools", Some(Syntax::Llama)),
            ("mistral_v3", Some(Syntax::Json)),
            ("gemma1", None),
            ("gemma3", None),
            ("llama3", None),
            ("chatml", None),
            // It repeats calls, but never hears of functions.
            ("deepseek_r1", None),
            ("llava_onevision", None),
        ] {
            let text = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
            assert_eq!(Syntax::detect(&text), expected, "{name}");
        }
    }

    #[test]
    fn marks_decide() {
        for (template, expected) in [
            ("{% if tools %}<start_function_call>{% endif %}", Some(Syntax::FunctionGemma)),
            ("{% for t in tools %}```tool_code{% endfor %}", Some(Syntax::ToolCode)),
            ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}", Some(Syntax::Json)),
            ("{{ message.toolset }}", None),
            ("{% if tools %}<tool_call><function=f>{% endif %}", None),
        ] {
            assert_eq!(Syntax::detect(template), expected, "{template}");
        }
    }
}
