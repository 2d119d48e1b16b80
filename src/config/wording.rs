//! Words of messages: what was probably meant, and what is too long to repeat. It must not know any key.

/// How much of a wrong value a message repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 60;
/// The longest word worth a search for its nearest neighbour: no key is half as long.
const SUGGEST_BYTES_MAX: usize = 40;

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, candidates: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|c| (strsim::damerau_levenshtein(&word, &c.replace('-', "_")), c))
        .min()
        .filter(|(distance, c)| *distance <= (c.len() / 3).max(1))
        .map(|(_, c)| c)
}

/// At most a line's worth of it, without control characters, and without the password of a URL.
pub(super) fn shorten(text: &str) -> String {
    let text = &without_password(text);
    let mut short: String = text.chars().take(EXCERPT_CHARS_MAX).filter(|c| !c.is_control()).collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// What stands between `://` and the last `@` of a URL goes.
fn without_password(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(start), Some(end)) if start < end => format!("{}://...{}", &text[..start], &text[end..]),
        // its end may have been cut off
        (Some(start), None) if text[..start].contains("redis") => format!("{}://...", &text[..start]),
        _ => text.to_owned(),
    }
}
