//! Every key that the requests of a scenario name, by number. It must not know what is counted under them.

use std::collections::BTreeMap;

/// A key's number in its scenario.
pub type KeyIndex = u32;

/// The texts of all keys, end to end: a million of them are no million allocations.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    text: String,
    ends: Vec<usize>,
    /// Where the numbered keys `prefix1`, `prefix2`, ... begin and how many there are.
    ranges: BTreeMap<String, (KeyIndex, u32)>,
    single: BTreeMap<String, KeyIndex>,
}

impl Keys {
    /// The text of a key, as requests carry it.
    #[must_use]
    pub fn text(&self, key: KeyIndex) -> &str {
        let at = key as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.ends.get(at).and_then(|end| self.text.get(start..*end)).unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) -> KeyIndex {
        use std::fmt::Write as _;
        let _ = self.text.write_fmt(text);
        self.ends.push(self.text.len());
        u32::try_from(self.ends.len() - 1).expect("four billion keys are more than memory holds")
    }

    /// The number of the key of that very text, which is made if need be.
    pub(super) fn one(&mut self, text: &str) -> KeyIndex {
        if let Some(key) = self.single.get(text) {
            return *key;
        }
        let prefix = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = text.get(prefix.len()..).filter(|n| !n.starts_with('0')).and_then(|n| n.parse::<u32>().ok());
        if let (Some((first, count)), Some(number)) = (self.ranges.get(prefix), number)
            && number <= *count
        {
            return first + number - 1;
        }
        let key = self.push(format_args!("{text}"));
        self.single.insert(text.to_owned(), key);
        key
    }

    /// The first of at least `count` keys `prefix1`, `prefix2`, ..., which stand in a row. All ranges are to be made
    /// before any [single key](Self::one) is.
    pub(super) fn range(&mut self, prefix: &str, count: u32) -> KeyIndex {
        if let Some((first, made)) = self.ranges.get(prefix)
            && *made >= count
        {
            return *first;
        }
        let first = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        for number in 1..=count {
            self.push(format_args!("{prefix}{number}"));
        }
        self.ranges.insert(prefix.to_owned(), (first, count));
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_text_are_one_key() {
        let mut keys = Keys::default();
        assert_eq!((keys.range("user", 12), keys.range("user", 3)), (0, 0));
        assert_eq!(keys.range("other", 2), 12);
        assert_eq!((keys.one("user12"), keys.one("x"), keys.one("x"), keys.one("user13")), (11, 14, 14, 15));
        assert_eq!(keys.one("user07"), 16);
        let texts: Vec<&str> = [0, 11, 13, 14, 15, 16].map(|k| keys.text(k)).to_vec();
        assert_eq!(texts, ["user1", "user12", "other2", "x", "user13", "user07"]);
        assert_eq!((keys.text(17), keys.len()), ("", 17));
    }
}
