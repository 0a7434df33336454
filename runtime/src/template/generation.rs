//! Hugging Face's tags `{% generation %}` and `{% endgeneration %}`, which mark what a model should learn.
//!
//! They mean nothing when a conversation is rendered but that names set between them stay there, like those within
//! `{% with %}`, so their words are replaced; whitespace control and line numbers stay as they are.

use std::borrow::Cow;

/// The template with these tags as `{% with %}` and `{% endwith %}`. What stands in comments, in raw blocks, in
/// strings and outside of tags is left alone.
pub(super) fn replace_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        result += before;
        let end = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => end_of_tag(tag, "}}"),
            Some(b'%') => {
                let end = end_of_tag(tag, "%}");
                let word = word_of(&tag[..end]);
                let replacement = match word.trim() {
                    "generation" => "with",
                    "endgeneration" => "endwith",
                    "raw" => {
                        let after = end_of_raw(tag, end);
                        result += &tag[..after];
                        rest = &tag[after..];
                        continue;
                    }
                    _ => word,
                };
                let from = word.as_ptr() as usize - tag.as_ptr() as usize;
                result += &tag[..from];
                result += replacement;
                result += &tag[from + word.len()..end];
                rest = &tag[end..];
                continue;
            }
            _ => 1,
        };
        result += &tag[..end];
        rest = &tag[end..];
    }
    result += rest;
    result.into()
}

/// What stands between `{%` and `%}`, without whitespace and its control.
fn word_of(tag: &str) -> &str {
    // A tag that never ends may be too short; what is returned still lies within it, which the caller relies on.
    let inner = tag.get(2..tag.len().saturating_sub(2)).unwrap_or(&tag[..0]);
    let control = |c| c == '-' || c == '+';
    let inner = inner.strip_prefix(control).unwrap_or(inner);
    inner.strip_suffix(control).unwrap_or(inner).trim()
}

/// Where a tag ends: behind `close`, unless that stands in a string.
fn end_of_tag(tag: &str, close: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (i, byte) in tag.bytes().enumerate().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            None if tag.as_bytes()[i..].starts_with(close.as_bytes()) => return i + close.len(),
            None => {}
        }
    }
    tag.len()
}

/// Where the `{% endraw %}` begins that belongs to the `{% raw %}` ending at `from`.
fn end_of_raw(text: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(found) = text[at..].find("{%") {
        let start = at + found;
        let end = text[start..].find("%}").map_or(text.len(), |end| start + end + 2);
        if word_of(&text[start..end]) == "endraw" {
            return start;
        }
        at = start + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_are_replaced() {
        for (source, expected) in [
            ("{% generation %}x{% endgeneration %}", "{% with %}x{% endwith %}"),
            ("{%- generation -%}\nx{%+endgeneration+%}", "{%- with -%}\nx{%+endwith+%}"),
            ("{%generation%}", "{%with%}"),
            ("{%\n generation\n%}", "{%\n with\n%}"),
            (
                "generation {# {% generation %} #} {{ '{% generation %}' }}",
                "generation {# {% generation %} #} {{ '{% generation %}' }}",
            ),
            (r#"{{ "\"{% generation %}" }}{% generation %}"#, r#"{{ "\"{% generation %}" }}{% with %}"#),
            (
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{% endraw %}{% with %}",
            ),
            ("{% if add_generation_prompt %}{", "{% if add_generation_prompt %}{"),
            ("generation{%", "generation{%"),
            ("generation{%x", "generation{%x"),
            ("{% set x = 'generation' %}{% generation", "{% set x = 'generation' %}{% generation"),
        ] {
            assert_eq!(replace_tags(source), expected, "{source}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(parts in proptest::collection::vec("[{}%#'\" \\\\-]|generation|raw|endraw|é", 0..40)) {
            let source = format!("generation{}", parts.concat());
            let replaced = replace_tags(&source);
            proptest::prop_assert_eq!(replaced.lines().count(), source.lines().count());
        }
    }
}
