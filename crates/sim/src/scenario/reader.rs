//! Reads a TOML document table by table, and notes everything wrong with it, each at its line with what is allowed. It
//! must not know any key by name.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use spillgate_core::rate::{Rate, parse_duration};
use spillgate_core::time::Nanos;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How many problems one report shows.
const SHOWN_MAX: usize = 10;
/// How much of a wrong value a message repeats, in characters.
const EXCERPT_CHARS_MAX: usize = 60;

/// Everything wrong with one scenario, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// Where the lines stand.
    pub file: Option<PathBuf>,
    /// All of them, by line.
    pub all: Vec<Problem>,
}

/// One thing wrong: where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The key, the value found and what is allowed.
    pub text: String,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.all.iter().take(SHOWN_MAX).enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            match &self.file {
                Some(file) => write!(f, "{}:{}: ", file.display(), problem.line)?,
                None => write!(f, "line {}: ", problem.line)?,
            }
            f.write_str(&problem.text)?;
        }
        match self.all.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// The document, and the problems found in it so far.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Document<'a> {
    pub const fn new(text: &'a str) -> Self {
        Self { text, problems: RefCell::new(Vec::new()) }
    }

    /// The document as a table; where it is no TOML, that is its only problem.
    pub fn parse(&self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let Some(error) = errors.into_iter().min_by_key(|e| e.span().unwrap_or_default().start) else {
            return Some(table.into_inner());
        };
        self.report(self.line(error.span().unwrap_or_default().start), format!("not TOML: {}", error.message().trim()));
        None
    }

    pub fn root(&'a self, values: &'a DeTable<'a>) -> Table<'a> {
        Table { document: self, prefix: String::new(), values: Some(values), line: 1, known: RefCell::default() }
    }

    /// The line, from 1, of the byte at `at`.
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }

    pub fn report(&self, line: usize, text: String) {
        self.problems.borrow_mut().push(Problem { line, text });
    }

    pub fn into_problems(self) -> Vec<Problem> {
        let mut all = self.problems.into_inner();
        all.sort();
        // some tables are read twice
        all.dedup();
        all
    }

    fn excerpt(&self, value: &Spanned<DeValue<'_>>) -> String {
        let line = self.text.get(value.span()).unwrap_or_default().lines().next().unwrap_or_default();
        shorten(line)
    }
}

/// At most a line's worth, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT_CHARS_MAX).filter(|c| !c.is_control()).collect();
    if text.chars().nth(EXCERPT_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// One table; one that is absent has no values. What has been asked for is known; [`Table::close`] reports the rest.
pub(super) struct Table<'a> {
    document: &'a Document<'a>,
    /// Leads to this table in messages: `network.`, `workload #2: `.
    prefix: String,
    values: Option<&'a DeTable<'a>>,
    line: usize,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// The line of the table's header.
    pub const fn line(&self) -> usize {
        self.line
    }

    pub const fn is_present(&self) -> bool {
        self.values.is_some()
    }

    /// Whether `key` was given, well or not.
    pub fn has(&self, key: &str) -> bool {
        self.values.is_some_and(|v| v.contains_key(key))
    }

    /// The line of `key`, or of the header where it is absent.
    pub fn line_of(&self, key: &str) -> usize {
        let value = self.values.and_then(|v| v.get(key));
        value.map_or(self.line, |v| self.document.line(v.span().start))
    }

    /// Notes a problem of `key`, at its line.
    pub fn report(&self, key: &str, text: &str) {
        self.document.report(self.line_of(key), format!("{}{text}", self.prefix));
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.values.and_then(|v| v.get(key))
    }

    /// The value of `key` by `convert`; what that does not take is reported as not being `expected`.
    pub fn read<T>(
        &self,
        key: &'static str,
        expected: &str,
        convert: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.find(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            let found = self.document.excerpt(value);
            self.report(key, &format!("{key} {found} must be {expected}"));
        }
        converted
    }

    /// Reports that `key` is missing, where it is.
    pub fn require(&self, key: &'static str, expected: &str) {
        if !self.has(key) {
            self.report(key, &format!("{key} is missing; it must be {expected}"));
        }
    }

    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        self.read(key, "text in quotes", |v| v.as_str().filter(|t| !t.is_empty()))
    }

    /// One text, or a list of them.
    pub fn texts(&self, key: &'static str) -> Option<Vec<&'a str>> {
        self.read(key, "text in quotes, or a list of such", |v| match v {
            DeValue::String(text) => Some(vec![text.as_ref()]),
            DeValue::Array(items) => items.iter().map(|i| i.get_ref().as_str()).collect(),
            _ => None,
        })
    }

    pub fn duration(&self, key: &'static str) -> Option<Nanos> {
        self.read(key, "a duration like \"500us\", \"10ms\" or \"1.5s\"", duration)
    }

    /// A duration that may be negative, in nanoseconds.
    pub fn signed_duration(&self, key: &'static str) -> Option<i64> {
        self.read(key, "a duration like \"200ms\" or \"-1.5s\"", |v| {
            let text = v.as_str()?;
            let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
            i64::try_from(parse_duration(text).ok()?.0).ok().map(|ns| sign * ns)
        })
    }

    /// One duration, or the least and the most of a range.
    pub fn durations(&self, key: &'static str) -> Option<(Nanos, Nanos)> {
        self.read(key, "a duration like \"10ms\" or a range like [\"10ms\", \"20ms\"]", |v| match v {
            DeValue::Array(items) => match items.iter().map(|i| duration(i.get_ref())).collect::<Option<Vec<_>>>()?[..]
            {
                [least, most] if least <= most => Some((least, most)),
                _ => None,
            },
            _ => duration(v).map(|d| (d, d)),
        })
    }

    pub fn rate(&self, key: &'static str) -> Option<Rate> {
        self.read(key, "a rate like \"100/s\", \"5000/m\" or \"10/10s\"", |v| v.as_str()?.parse().ok())
    }

    pub fn count(&self, key: &'static str, least: u64, most: u64) -> Option<u64> {
        self.read(key, &format!("a whole number from {least} to {most}"), |v| {
            integer(v).and_then(|n| u64::try_from(n).ok()).filter(|n| (least..=most).contains(n))
        })
    }

    /// One whole number, or the least and the most of a range.
    pub fn counts(&self, key: &'static str, least: u64, most: u64) -> Option<(u64, u64)> {
        let expected = format!("a whole number from {least} to {most}, or a range like [{least}, {most}]");
        let fits =
            |v: &DeValue<'_>| integer(v).and_then(|n| u64::try_from(n).ok()).filter(|n| (least..=most).contains(n));
        self.read(key, &expected, |v| match v {
            DeValue::Array(items) => match items.iter().map(|i| fits(i.get_ref())).collect::<Option<Vec<_>>>()?[..] {
                [from, to] if from <= to => Some((from, to)),
                _ => None,
            },
            _ => fits(v).map(|n| (n, n)),
        })
    }

    pub fn signed(&self, key: &'static str, least: i64, most: i64) -> Option<i64> {
        self.read(key, &format!("a whole number from {least} to {most}"), |v| {
            integer(v).filter(|n| (least..=most).contains(n))
        })
    }

    pub fn number(&self, key: &'static str, least: f64, most: f64) -> Option<f64> {
        self.read(key, &format!("a number from {least} to {most}"), |v| {
            number(v).filter(|n| (least..=most).contains(n))
        })
    }

    /// Numbers that are not negative, not all 0.
    pub fn weights(&self, key: &'static str) -> Option<Vec<f64>> {
        self.read(key, "a list of numbers, none negative and not all 0, like [4, 1, 1]", |v| {
            let weights: Vec<f64> = v.as_array()?.iter().map(|i| number(i.get_ref())).collect::<Option<_>>()?;
            let fit = weights.iter().all(|w| *w >= 0.0) && weights.iter().any(|w| *w > 0.0);
            fit.then_some(weights)
        })
    }

    /// Whole numbers of a range, at least one.
    pub fn list(&self, key: &'static str, least: u64, most: u64) -> Option<Vec<u64>> {
        self.read(key, &format!("a whole number from {least} to {most}, or a list of such"), |v| {
            let one =
                |v: &DeValue<'_>| integer(v).and_then(|n| u64::try_from(n).ok()).filter(|n| (least..=most).contains(n));
            match v {
                DeValue::Array(items) if !items.is_empty() => items.iter().map(|i| one(i.get_ref())).collect(),
                _ => one(v).map(|n| vec![n]),
            }
        })
    }

    /// A part of a whole, 0 to 1.
    pub fn fraction(&self, key: &'static str) -> Option<f64> {
        self.read(key, "a part from 0% to 100% like \"20%\" or 0.2", |v| {
            let part = match v {
                DeValue::String(text) => text.trim().strip_suffix('%')?.trim_end().parse::<f64>().ok()? / 100.0,
                _ => number(v)?,
            };
            (0.0..=1.0).contains(&part).then_some(part)
        })
    }

    pub fn flag(&self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", |v| v.as_bool())
    }

    /// One of these words, as its place among them.
    pub fn choice(&self, key: &'static str, words: &[&str]) -> Option<usize> {
        let expected = format!("one of \"{}\"", words.join("\", \""));
        let value = self.find(key)?;
        let place = value.get_ref().as_str().and_then(|text| words.iter().position(|w| *w == text));
        if place.is_none() {
            let found = self.document.excerpt(value);
            let hint = suggestion(value.get_ref().as_str().unwrap_or_default(), words.iter().copied());
            self.report(key, &format!("{key} {found} must be {expected}{hint}"));
        }
        place
    }

    /// A table below this one; empty when absent.
    pub fn table(&self, key: &'static str) -> Table<'a> {
        let prefix = format!("{}{key}.", self.prefix);
        let values = self.read(key, &format!("a table [{key}]"), |v| v.as_table());
        Table { document: self.document, prefix, values, line: self.line_of(key), known: RefCell::default() }
    }

    /// An array of tables below this one.
    pub fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let header = format!("{}{key}", self.prefix.replace(' ', ""));
        let items = self.read(key, &format!("tables under headers in double brackets [[{header}]]"), |v| {
            let items = v.as_array()?.iter();
            items.map(|i| i.get_ref().as_table().map(|t| (t, i.span().start))).collect::<Option<Vec<_>>>()
        });
        let open = |(n, (values, at)): (usize, (&'a DeTable<'a>, usize))| Table {
            document: self.document,
            prefix: format!("{}{key} #{}: ", self.prefix, n + 1),
            values: Some(values),
            line: self.document.line(at),
            known: RefCell::default(),
        };
        items.unwrap_or_default().into_iter().enumerate().map(open).collect()
    }

    /// Reports every key that nobody has asked for.
    pub fn close(&self) {
        let Some(values) = self.values else { return };
        let known = self.known.borrow();
        for key in values.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let mut hint = suggestion(name, known.iter().copied());
                if hint.is_empty() {
                    hint = format!("; known here: {}", known.join(", "));
                }
                let text = format!("{}{} is not a known key{hint}", self.prefix, shorten(name));
                self.document.report(self.document.line(key.span().start), text);
            }
        }
    }
}

/// `; did you mean "..."?`, where one of the candidates is near.
pub(super) fn suggestion<'k>(word: &str, candidates: impl Iterator<Item = &'k str>) -> String {
    let word = word.to_ascii_lowercase().replace('_', "-");
    let nearest = candidates.map(|c| (strsim::damerau_levenshtein(&word, &c.replace('_', "-")), c)).min();
    match nearest {
        Some((distance, c)) if distance <= (c.len() / 3).max(1) => format!("; did you mean \"{c}\"?"),
        _ => String::new(),
    }
}

fn duration(value: &DeValue<'_>) -> Option<Nanos> {
    parse_duration(value.as_str()?).ok()
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let DeValue::Integer(n) = value else { return None };
    i64::from_str_radix(n.as_str(), n.radix()).ok()
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(f) => f.as_str().parse().ok().filter(|f: &f64| f.is_finite()),
        _ => integer(value).map(|n| n as f64),
    }
}
