//! Where a path may begin and end inside a message: white space, brackets and quotes of many languages, punctuation,
//! and letters of scripts that are written without spaces.

/// Brackets and quotes that enclose a path. Some close in one language what they open in another.
const PAIRS: &[(char, char)] = &[
    ('(', ')'),
    ('[', ']'),
    ('{', '}'),
    ('<', '>'),
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('*', '*'),
    ('“', '”'),
    ('„', '“'),
    ('„', '”'),
    ('”', '”'),
    ('‘', '’'),
    ('‚', '‘'),
    ('‚', '’'),
    ('’', '’'),
    ('«', '»'),
    ('»', '«'),
    ('‹', '›'),
    ('›', '‹'),
    ('（', '）'),
    ('［', '］'),
    ('｛', '｝'),
    ('＜', '＞'),
    ('＂', '＂'),
    ('「', '」'),
    ('『', '』'),
    ('【', '】'),
    ('〔', '〕'),
    ('《', '》'),
    ('〈', '〉'),
    ('〝', '〞'),
    ('〝', '〟'),
    ('｢', '｣'),
];

/// Whether the two enclose what is between them.
pub fn is_pair(before: char, after: char) -> bool {
    PAIRS.contains(&(before, after))
}

/// Whether brackets or quotes begin or end with this.
pub fn is_enclosing(c: char) -> bool {
    PAIRS.iter().any(|&(open, close)| c == open || c == close)
}

/// Whether the pair consists of quotes, between which spaces belong to a name.
pub fn is_quote(c: char) -> bool {
    is_enclosing(c) && !matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '*' | '（' | '）' | '［' | '］')
}

/// The quotes that `close` ends.
pub fn openers(close: char) -> impl Iterator<Item = char> {
    PAIRS.iter().filter(move |&&(open, end)| end == close && is_quote(open)).map(|&(open, _)| open)
}

/// Letters of scripts without spaces between words, and their punctuation: a name may follow them, or they a name.
pub fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' // Burmese
        | '\u{1100}'..='\u{11ff}' // Hangul
        | '\u{1780}'..='\u{17ff}' // Khmer
        | '\u{3000}'..='\u{9fff}' // Han, kana, Bopomofo, Hangul, with their punctuation
        | '\u{ac00}'..='\u{d7ff}' // Hangul
        | '\u{f900}'..='\u{faff}' // Han
        | '\u{fe30}'..='\u{fe4f}' // punctuation of vertical lines
        | '\u{ff00}'..='\u{ffef}' // full width
        | '\u{20000}'..='\u{3ffff}' // Han
    )
}

/// Whether a path may begin behind this.
pub fn may_precede(c: char) -> bool {
    c.is_whitespace()
        || is_enclosing(c)
        || is_unspaced(c)
        || matches!(c, '=' | ':' | ',' | ';' | '|' | '!' | '?' | '@' | '—' | '–' | '…' | '¿' | '¡' | '\u{feff}')
}

/// Whether a path that ends with an extension may end in front of `rest`.
pub fn may_follow(rest: &str) -> bool {
    let mut chars = rest.chars();
    let (Some(next), after) = (chars.next(), chars.next()) else { return true };
    let goes_on = after.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
    match next {
        '_' | '@' => false,
        '-' | '.' | '/' => !goes_on,
        // A separator, or an escaped space inside a name.
        '\\' => after.is_none_or(|c| !c.is_alphanumeric() && !c.is_whitespace()),
        // More of the name, percent-encoded.
        '%' => !after.is_some_and(|c| c.is_ascii_hexdigit()),
        c => is_unspaced(c) || !c.is_alphanumeric(),
    }
}

/// Punctuation that belongs to a list of paths and goes with them.
pub fn separates(c: char) -> bool {
    matches!(c, ',' | ';' | ':' | '，' | '、' | '；' | '：')
}

/// Punctuation in front of which there is no space.
pub fn ends_sentence(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？' | '．' | '｡')
}

/// Brackets behind which there is no space.
pub fn opens(c: char) -> bool {
    matches!(c, '(' | '[' | '{' | '（' | '［' | '｛' | '「' | '『' | '【' | '〔' | '《' | '〈')
}

/// Brackets in front of which there is no space.
pub fn closes(c: char) -> bool {
    matches!(c, ')' | ']' | '}' | '）' | '］' | '｝' | '」' | '』' | '】' | '〕' | '》' | '〉')
}

/// Where the name that ends in front of `end` begins if nothing on disk tells: behind white space, an enclosing
/// character or a separator. A backslash keeps a space inside.
pub fn word_start(line: &str, end: usize) -> usize {
    let mut start = end;
    for (at, c) in line[..end].char_indices().rev() {
        let is_escaped = line[..at].ends_with('\\');
        let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let is_apostrophe = matches!(c, '\'' | '’')
            && is_letter(line[..at].chars().next_back())
            && is_letter(line[start..].chars().next());
        let is_border = c.is_whitespace() || is_enclosing(c) || separator_of_words(c);
        if is_border && !is_escaped && !is_apostrophe {
            break;
        }
        start = at;
    }
    start
}

fn separator_of_words(c: char) -> bool {
    matches!(c, '=' | '|') || (separates(c) && c != ':') || ends_sentence(c) && is_unspaced(c)
}
