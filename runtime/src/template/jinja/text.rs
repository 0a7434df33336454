//! Texts as Python sees them: letters by place, whitespace, lines, and case.

/// Python's whitespace.
pub(crate) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

/// What Python's `splitlines` ends a line at.
pub(super) fn is_line_end(letter: char) -> bool {
    matches!(letter, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// `count` letters from the place `start` on, as far as there are any.
pub(super) fn letters(text: &str, start: usize, count: usize) -> &str {
    if text.is_ascii() {
        let start = start.min(text.len());
        return &text[start..start.saturating_add(count).min(text.len())];
    }
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = places.by_ref().nth(start).unwrap_or(text.len());
    let to = if count == 0 { from } else { places.nth(count - 1).unwrap_or(text.len()) };
    &text[from..to]
}

/// Python's `splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if !is_line_end(letter) {
            continue;
        }
        let mut end = at + letter.len_utf8();
        if letter == '\r' && letters.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// Whether Python's `repr` writes the letter as it is.
pub(super) fn is_printable(letter: char) -> bool {
    // Behind another letter, Rust escapes the same categories as Python: controls, separators, unassigned.
    letter == '\'' || letter == '"' || letter == '\\' || {
        let pair: String = ['a', letter].into_iter().collect();
        pair.escape_debug().eq(pair.chars())
    }
}

/// The first letter large, the others small.
pub(super) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => title_case(first) + &letters.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// As letters look at the beginning of a word.
fn title_case(letter: char) -> String {
    match letter {
        'ǆ' | 'ǅ' | 'Ǆ' => "ǅ".to_owned(),
        'ǉ' | 'ǈ' | 'Ǉ' => "ǈ".to_owned(),
        'ǌ' | 'ǋ' | 'Ǌ' => "ǋ".to_owned(),
        'ǳ' | 'ǲ' | 'Ǳ' => "ǲ".to_owned(),
        'ß' => "Ss".to_owned(),
        other => {
            let mut upper = other.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

/// Python's `str.title`: each run of letters begins large.
pub(super) fn titled(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut within = false;
    for letter in text.chars() {
        let cased = letter.is_lowercase() || letter.is_uppercase();
        if !cased {
            result.push(letter);
        } else if within {
            result.extend(letter.to_lowercase());
        } else {
            result += &title_case(letter);
        }
        within = cased;
    }
    result
}

/// Python's `str.swapcase`.
pub(super) fn case_swapped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_uppercase() {
            true => result.extend(letter.to_lowercase()),
            false => result.extend(letter.to_uppercase()),
        }
    }
    result
}
